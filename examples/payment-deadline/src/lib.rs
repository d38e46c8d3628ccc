//! Service `payment-deadline`: a process manager. Cancels an order unless a payment arrives in time.

use std::time::Duration;

use headwater::effect::webhook::{self, Webhook};
use headwater::effect::{self, Effect, Intent, Outcome};
use headwater::prelude::*;
use serde_json::json;
use shop_events::OrderPlaced;

headwater::include_events!();

const MIGRATIONS: &[Migration] = &[Migration::sql(
    "0001_deadline",
    include_str!("../migrations/0001_deadline.sql"),
)];

pub const ABOUT: About = About {
    name: "payment-deadline",
    description: "Cancels an order unless a payment arrives in time.",
    version: env!("CARGO_PKG_VERSION"),
    port: 8092,
};

#[derive(Debug)]
struct PaymentDeadline {
    db: Database,
    within: Duration,
    commands: Webhook,
}

impl Effect for PaymentDeadline {
    const NAME: &'static str = "payment-deadline"; // never rename
    const SOURCES: &'static [&'static str] = &["orders", "payments"];
    const EVENTS: &'static [&'static str] = &[OrderPlaced::SUBJECT, PaymentReceived::SUBJECT];

    /// Events in: the state of the order, and a timer. The payment may come first.
    fn intend(&self, tx: &Tx, event: &Envelope) -> Result<Intent, ApplyError> {
        if event.is::<PaymentReceived>() {
            let PaymentReceived { order_id } = event.decode()?;
            move_on(tx, &order_id, "paid")?;
            return Ok(Intent::None);
        }
        let OrderPlaced { order_id, .. } = event.decode()?;
        move_on(tx, &order_id, "open")?;
        Ok(Intent::After(self.within))
    }

    /// The timer is due: a command out, if the order is not paid.
    async fn perform(&self, event: &Envelope, key: &str) -> Outcome {
        let Ok(OrderPlaced { order_id, .. }) = event.decode() else {
            return Outcome::GiveUp("it does not decode".to_owned());
        };
        let command = json!({ "type": "order.cancel", "data": { "order_id": order_id } });
        // Decided once: at the next attempt, the order is cancelled or paid.
        let decide = move |tx: &Tx| move_on(tx, &order_id, "cancelled");
        match self.db.write(decide).await.map(|decided| decided.value) {
            Ok(state) if state == "paid" => Outcome::Done,
            Ok(_) => self.commands.post(key, command.to_string()).await,
            Err(error) => Outcome::retry(error.to_string()),
        }
    }
}

/// Moves an order to `state`, unless it was paid or cancelled before. Returns its state.
fn move_on(tx: &Tx, order_id: &str, state: &str) -> Result<String, DbErr> {
    let row = tx.query_one_raw(raw_sql!(
        Sqlite,
        "INSERT INTO deadline (order_id, state) VALUES ({order_id}, {state})
         ON CONFLICT DO UPDATE SET state = iif(state = 'open', excluded.state, state)
         RETURNING state"
    ))?;
    row.ok_or(DbErr::RecordNotInserted)?.try_get_by(0)
}

/// Its settings.
#[derive(Debug, clap::Args)]
pub struct Settings {
    #[command(flatten)]
    pub service: Config,
    #[command(flatten)]
    pub webhook: webhook::Config,
    /// How long an order waits for its payment
    #[arg(long, env = "HEADWATER_PAY_WITHIN", value_parser = headwater::telemetry::duration, default_value = "15m")]
    pub pay_within: Duration,
}

/// Runs the service until it is stopped.
pub async fn run(settings: Settings, process: Process) -> headwater::Result {
    let mut service = Service::start(ABOUT, MIGRATIONS, settings.service, process).await?;
    let commands = settings.webhook.open(service.db.clock().clone())?;
    let deadline = PaymentDeadline {
        db: service.db.clone(),
        within: settings.pay_within,
        commands: commands.ok_or("--webhook-url is missing")?,
    };
    service.effect(deadline, effect::Config::default()).await?;
    service.serve(OpenApiRouter::new()).await
}
