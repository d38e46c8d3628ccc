//! Backup and restore on a real systemd, strictly by `docs/operations.md`. Needs root and systemd.

use e2e::systemd::{Machine, unit};
use e2e::world::titles;
use e2e::{Reply, Service, eventually};

use Service::{Orders, Purchases};

use crate::systemd::{Visit, visit};

/// The titles of a user's purchases.
async fn ordered(machine: &Machine, user: &Reply, after: &str) -> Vec<String> {
    let path = format!("/users/{}/purchases{after}", user.id());
    let reply = eventually("the purchases", async || {
        let reply = machine.client(Purchases).get(&path).await;
        if reply.status == 200 {
            Ok(reply)
        } else {
            Err(reply.text)
        }
    });
    titles(&reply.await.json)
}

/// Asserts that the restored database has the right owner and that the service runs.
async fn serves(machine: &Machine) {
    let folder = "/var/lib/headwater/orders";
    let of = |path: &str| format!("stat -c %u:%g:%a {path}");
    let folder_of = machine.sh(&of(&format!("{folder}/"))).await;
    let file = machine.sh(&of(&format!("{folder}/orders.db"))).await;
    let expected = folder_of.replace(":700", ":600");
    assert_eq!(file, expected, "the owner of {folder}");
    let unit = unit(Orders);
    assert_eq!(machine.shows(&unit, "ActiveState").await, "active");
    visit(machine, "eve").await;
    assert_eq!(machine.shows(&unit, "NRestarts").await, "0");
}

#[test]
fn a_lost_database_comes_back_with_one_command_from_the_newest_copy_and_from_an_older_one() {
    Machine::run_test(&[], async |machine| {
        machine.start().await;
        let state = machine.shows("headwater-backup.timer", "ActiveState").await;
        assert_eq!(state, "active", "the timer is not active");
        let Visit { user: ada, all: at } = visit(machine, "ada").await;
        assert_eq!(
            ordered(machine, &ada, &format!("?after={at}")).await,
            ["ada"]
        );

        machine
            .run(&["systemctl", "start", "headwater-backup"])
            .await;
        let made = machine
            .sh("cd /var/backups/headwater; sha256sum -c *.sha256; stat -c %a . *.db; ls -A")
            .await;
        assert_eq!(made.matches(": OK").count(), 3, "{made}");
        assert!(made.contains("\n700\n600\n600\n600\n"), "{made}");
        assert!(!made.contains("keys") && !made.contains("part"), "{made}");
        eventually("the age of the backup", async || {
            let text = machine.admin(Orders).get("/metrics").await.text;
            let name = "headwater_backup_timestamp_seconds{source=\"orders\"} 1";
            if text.contains(name) {
                Ok(())
            } else {
                Err(text)
            }
        })
        .await;
        let older = machine.sh("ls /var/backups/headwater/orders-*.db").await;

        // The newest copy: no event is later.
        let Visit { user: bob, all: at } = visit(machine, "bob").await;
        assert_eq!(
            ordered(machine, &bob, &format!("?after={at}")).await,
            ["bob"]
        );
        machine
            .sh("headwater backup orders --to /var/backups/headwater")
            .await;
        let newest = machine
            .sh("ls -t /var/backups/headwater/orders-*.db | head -1")
            .await;
        assert_ne!(newest, older);
        machine
            .sh("dd if=/dev/urandom of=/var/lib/headwater/orders/orders.db bs=4k count=8 conv=notrunc 2>&1")
            .await;
        let restored = machine
            .run(&["headwater", "restore", "orders", &newest, "--yes"])
            .await;
        assert!(
            restored.contains("orders serves from the copy, up to 2\n"),
            "{restored}"
        );
        serves(machine).await;
        assert_eq!(ordered(machine, &bob, "").await, ["bob"]);

        // An older copy, with the database gone.
        machine
            .sh("systemctl stop 'headwater-orders*.socket' headwater-orders; rm /var/lib/headwater/orders/orders.db*")
            .await;
        let asked = machine
            .try_run(&["headwater", "restore", "orders", &older])
            .await;
        assert!(
            !asked.is_ok && asked.text.contains("the 2 events after orders:1"),
            "{}",
            asked.text
        );
        let restored = machine
            .run(&["headwater", "restore", "orders", &older, "--yes"])
            .await;
        assert!(
            restored.contains("up to 1, in a new epoch\nlost: 2 events"),
            "{restored}"
        );
        serves(machine).await;
        assert_eq!(ordered(machine, &ada, "").await, ["ada"]);
        assert_eq!(ordered(machine, &bob, "").await, [] as [&str; 0]);
        machine.run(&["headwater", "verify"]).await;
    });
}
