//! The test kit by example: a projection that ends in the same tables in any order of its sources,
//! and one that does not.

use headwater::prelude::*;

headwater::include_events!();

/// The table of both projections.
pub const MIGRATIONS: &[Migration] = &[Migration::sql(
    "0001_balance",
    "CREATE TABLE balance (account TEXT NOT NULL PRIMARY KEY, amount INTEGER NOT NULL)",
)];

/// Adds what was paid in and out.
#[derive(Debug)]
pub struct Balances;

impl Projection for Balances {
    const NAME: &'static str = "balances"; // never rename
    const VERSION: u32 = 1;
    const SOURCES: &'static [&'static str] = &[DepositsEvent::SOURCE, WithdrawalsEvent::SOURCE];
    const EVENTS: &'static [&'static [&'static str]] =
        &[DepositsEvent::SUBJECTS, WithdrawalsEvent::SUBJECTS];

    fn apply(&self, tx: &Tx, events: &[Envelope]) -> Result<(), ApplyError> {
        for event in events {
            let (account, change) = if &*event.source == DepositsEvent::SOURCE {
                let DepositsEvent::Made(deposit) = event.try_into()?;
                (deposit.account, deposit.amount)
            } else {
                let WithdrawalsEvent::Made(withdrawal) = event.try_into()?;
                (withdrawal.account, -withdrawal.amount)
            };
            tx.run_raw(raw_sql!(
                Sqlite,
                "INSERT INTO balance (account, amount) VALUES ({account}, {change})
                 ON CONFLICT (account) DO UPDATE SET amount = amount + excluded.amount"
            ))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use headwater_testkit::{converges, events};

    use super::*;

    /// Leaves out a withdrawal that is not covered: so it depends on which source comes first.
    struct Cautious;

    impl Projection for Cautious {
        const NAME: &'static str = "cautious";
        const VERSION: u32 = 1;
        const SOURCES: &'static [&'static str] = Balances::SOURCES;
        const EVENTS: &'static [&'static [&'static str]] = Balances::EVENTS;

        fn apply(&self, tx: &Tx, events: &[Envelope]) -> Result<(), ApplyError> {
            for event in events {
                let covered = raw_sql!(Sqlite, "SELECT 1 FROM balance WHERE amount >= 30");
                let is_covered = || tx.query_one_raw(covered);
                if !event.is::<WithdrawalMade>() || is_covered()?.is_some() {
                    Balances.apply(tx, std::slice::from_ref(event))?;
                }
            }
            Ok(())
        }
    }

    fn history() -> Vec<Envelope> {
        let account = "ada".to_owned();
        let deposit = DepositMade {
            account: account.clone(),
            amount: 50,
        };
        let withdrawal = WithdrawalMade {
            account,
            amount: 30,
        };
        events![deposit, withdrawal, deposit]
    }

    #[tokio::test]
    async fn sums_end_the_same_in_any_order() {
        converges(|| Balances, MIGRATIONS, history()).check().await;
    }

    #[tokio::test]
    async fn what_depends_on_the_order_is_shown_with_two_orders() {
        let check = converges(|| Cautious, MIGRATIONS, history()).seed(7);
        let report = check.report().await.expect("two orders differ");
        assert!(report.contains("> withdrawals:1 made"), "{report}");
        assert!(report.contains("only left: account='ada'"), "{report}");
    }
}
