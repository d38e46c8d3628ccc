//! Headwater under a real systemd, installed as an operator would. Needs root and systemd.

use std::time::Duration;

use e2e::hammer::{Hammer, Target};
use e2e::systemd::{Machine, UNITS, unit};
use e2e::world::{after, titles};
use e2e::{PATIENCE, Reply, Service, eventually};
use serde_json::{Value, json};

use Service::{Orders, Products, Purchases, Users};

/// A visit to the shop, to be found again.
pub(crate) struct Visit {
    pub(crate) user: Reply,
    pub(crate) all: String,
}

/// Registers a user, creates a product and orders it.
pub(crate) async fn visit(machine: &Machine, name: &str) -> Visit {
    let user = json!({"name": name, "email": format!("{name}@example.com")});
    let user = machine.client(Users).create("/users", &user).await;
    let product = json!({"title": name, "image": "https://example.com/i.png"});
    let product = machine.client(Products).create("/products", &product).await;
    let order = json!({"user_id": user.id(), "product_ids": [product.id()]});
    let path = format!("/orders?after={}", after(&[&user, &product]));
    let order = machine.client(Orders).create(&path, &order).await;
    let all = after(&[&user, &product, &order]);
    Visit { user, all }
}

/// Waits until `purchases` shows the visit's order.
pub(crate) async fn is_shown(machine: &Machine, name: &str, visit: &Visit) {
    let path = format!("/users/{}/purchases?after={}", visit.user.id(), visit.all);
    let reply = eventually("the purchases", async || {
        let reply = machine.client(Purchases).get(&path).await;
        if reply.status == 200 {
            return Ok(reply);
        }
        Err(reply.text)
    })
    .await;
    assert_eq!(titles(&reply.json), [name]);
}

/// The messages that services logged at `err` or worse.
async fn errors(machine: &Machine) -> Vec<Value> {
    machine.journal(&["-p", "err", "-u", "headwater-*"]).await
}

#[test]
fn the_shop_runs_under_systemd_and_stops_in_order() {
    Machine::run_test(&[], async |machine| {
        machine.start().await;
        let ada = visit(machine, "ada").await;
        is_shown(machine, "ada", &ada).await;
        is_verified_every_night(machine).await;
        let purchases = unit(Purchases);
        machine
            .comes(&purchases, "StatusText", |status| {
                status == "4 components ok"
            })
            .await;
        let errors = errors(machine).await;
        assert!(errors.is_empty(), "{errors:?}");

        stop(machine).await;
        machine.start().await;
        is_shown(machine, "ada", &ada).await;
        stop(machine).await;
    });
}

/// The nightly timer is set; its service finds that all agree and records the time.
async fn is_verified_every_night(machine: &Machine) {
    let verify = "headwater-verify.service";
    machine
        .comes("headwater-verify.timer", "ActiveState", |now| {
            now == "active"
        })
        .await;
    let stamp = "date +%s%N -r /var/lib/headwater/purchases/purchases.db.purchases-verified";
    let before = eventually("the first look", async || {
        let text = machine.sh(&format!("{stamp} 2>/dev/null || true")).await;
        text.trim().parse::<i64>().map_err(|_| text)
    })
    .await;
    machine.run(&["systemctl", "start", verify]).await;
    let said = machine.journal(&["-u", verify]).await;
    assert!(format!("{said:?}").contains("all agree"), "{said:?}");
    let after: i64 = machine.sh(stamp).await.trim().parse().unwrap();
    assert!(after > before, "{before}, then {after}");
}

/// Stops everything and checks how each unit ended.
async fn stop(machine: &Machine) {
    machine
        .run(&["systemctl", "stop", "headwater.target"])
        .await;
    for unit in UNITS {
        machine
            .comes(unit, "ActiveState", |now| now == "inactive")
            .await;
        for (property, expected) in [
            ("Result", "success"),
            ("ExecMainStatus", "0"),
            ("NRestarts", "0"),
        ] {
            let shown = machine.shows(unit, property).await;
            assert_eq!(shown, expected, "{property} of {unit}");
        }
        for ending in [".socket", "-admin.socket"] {
            let socket = unit.replace(".service", ending);
            machine
                .comes(&socket, "ActiveState", |now| now == "inactive")
                .await;
        }
    }
}

#[test]
fn the_units_are_right_and_shut_in() {
    Machine::run_test(&[], async |machine| {
        let verified = machine
            .sh("systemd-analyze verify /usr/local/lib/systemd/system/headwater*.{service,socket,target,timer} 2>&1")
            .await;
        assert_eq!(verified, "");
        let others = ["headwater-provision.service", "headwater-verify.service"];
        for unit in UNITS.into_iter().chain(others) {
            // In tenths: an exposure of 1.0.
            machine
                .run(&[
                    "systemd-analyze",
                    "security",
                    "--offline=true",
                    "--threshold=10",
                    unit,
                ])
                .await;
        }
    });
}

#[test]
fn the_journal_has_a_field_for_each_value() {
    Machine::run_test(&[], async |machine| {
        machine.start().await;
        let ada = visit(machine, "ada").await;
        is_shown(machine, "ada", &ada).await;
        let subject = "orders.v1.placed.7";
        let nats = machine.operator().await;
        nats.publish(subject, "no order".into()).await.unwrap();
        nats.flush().await.unwrap();
        let field = format!("EVENT_SUBJECT={subject}");
        let entry = eventually("the dead letter in the journal", async || {
            let unit = unit(Purchases);
            let entries = machine.journal(&["-u", &unit, &field]).await;
            entries.into_iter().next().ok_or("nothing")
        })
        .await;
        assert_eq!(entry["SYSLOG_IDENTIFIER"], "headwater-purchases");
        assert_eq!(entry["PRIORITY"], "3", "not an error: {entry}");
        let text = entry["MESSAGE"].as_str().unwrap();
        assert!(text.contains(&format!("event.subject={subject}")), "{text}");
    });
}

#[test]
fn what_is_killed_or_stands_still_is_started_again() {
    const SOON: &str = "[Service]\nWatchdogSec=5s\n";
    Machine::run_test(&[("headwater-users.service", SOON)], async |machine| {
        machine.start().await;
        let unit = unit(Users);
        let restarts = async |count: &str| {
            machine.comes(&unit, "NRestarts", |now| now == count).await;
            machine
                .comes(&unit, "ActiveState", |now| now == "active")
                .await;
            let visit = visit(machine, &format!("after-{count}")).await;
            is_shown(machine, &format!("after-{count}"), &visit).await;
        };

        machine
            .run(&["systemctl", "kill", "-s", "KILL", &unit])
            .await;
        restarts("1").await;
        assert_eq!(bites(machine, &unit).await, 0);

        machine
            .run(&["systemctl", "kill", "-s", "STOP", &unit])
            .await;
        restarts("2").await;
        assert_eq!(bites(machine, &unit).await, 1);

        // Only the writer has stopped: its next system call never returns.
        let pid = machine.shows(&unit, "MainPID").await;
        let thread = format!(
            "for t in /proc/{pid}/task/*; do if grep -qx users-writer $t/comm; then echo ${{t##*/}}; fi; done"
        );
        let thread = machine.sh(&thread).await;
        let freeze = [
            "systemd-run",
            "-q",
            "--unit=freeze",
            "strace",
            "-o",
            "/dev/null",
            "-p",
        ];
        let freeze = [&freeze[..], &[&thread, "-e", "inject=all:delay_enter=600s"]].concat();
        machine.run(&freeze).await;
        eventually("the watchdog to bite", async || {
            let bites = bites(machine, &unit).await;
            if bites == 2 { Ok(()) } else { Err(bites) }
        })
        .await;
        let lives = machine.client(Purchases).get("/livez").await;
        assert_eq!(lives.status, 200, "the other services are affected");
        // Releases the thread, so that the process can end.
        machine
            .run(&["systemctl", "kill", "-s", "KILL", "freeze.service"])
            .await;
        restarts("3").await;
        for other in UNITS.iter().filter(|other| **other != unit) {
            assert_eq!(machine.shows(other, "NRestarts").await, "0", "{other}");
        }
    });
}

/// How often the watchdog has ended a unit.
async fn bites(machine: &Machine, unit: &str) -> usize {
    let matches = [format!("UNIT={unit}"), "_PID=1".to_owned()];
    let entries = machine.journal(&[&matches[0], &matches[1]]).await;
    let is_bite = |entry: &&Value| {
        let message = entry["MESSAGE"].as_str().unwrap_or_default();
        message.contains("Watchdog timeout")
    };
    entries.iter().filter(is_bite).count()
}

#[test]
fn restarts_and_reloads_under_load_refuse_and_reset_no_connection() {
    Machine::run_test(&[], async |machine| {
        machine.start().await;
        let target = |service: Service, line, body| Target {
            address: ([127, 0, 0, 1], service.port()).into(),
            line,
            body,
        };
        let load = Hammer::begin(
            3,
            vec![
                target(
                    Users,
                    "POST /users",
                    r#"{"name": "Ada", "email": "ada-#@example.com"}"#,
                ),
                target(Purchases, "GET /readyz", ""),
            ],
        );
        let more = async |load: &Hammer| {
            let before = load.answered();
            eventually("a hundred more answers", async || {
                let answered = load.answered();
                if answered > before + 100 {
                    Ok(())
                } else {
                    Err(answered)
                }
            })
            .await;
        };
        more(&load).await;
        for round in 0..3 {
            for unit in [unit(Users), unit(Purchases)] {
                let before = machine.shows(&unit, "MainPID").await;
                machine.run(&["systemctl", "restart", &unit]).await;
                assert_ne!(
                    machine.shows(&unit, "MainPID").await,
                    before,
                    "round {round}"
                );
                more(&load).await;
                machine.run(&["systemctl", "reload", &unit]).await;
                more(&load).await;
            }
        }
        assert!(load.end().await > 1000);
    });
}

#[test]
fn a_reload_reads_the_log_filter_anew_and_says_what_is_wrong_with_it() {
    Machine::run_test(&[], async |machine| {
        machine.start().await;
        let (unit, own) = (unit(Orders), "SYSLOG_IDENTIFIER=headwater-orders");
        let says = async |field: &str, words: &str| {
            eventually(words, async || {
                let entries = machine.journal(&[own, field]).await;
                let found = entries
                    .iter()
                    .any(|entry| entry.to_string().contains(words));
                if found { Ok(()) } else { Err(entries) }
            })
            .await;
        };
        let debug = machine.journal(&[own, "PRIORITY=7"]).await;
        assert!(debug.is_empty(), "{debug:?}");
        machine
            .sh("echo info,headwater=debug,async_nats=off >/etc/headwater/log-filter")
            .await;
        machine.run(&["systemctl", "reload", &unit]).await;
        says("PRIORITY=6", "log filter: reloaded").await;
        visit(machine, "ada").await;
        says("PRIORITY=7", "published").await;
        machine
            .sh("echo loud=nonsense >/etc/headwater/log-filter")
            .await;
        let done = machine.try_run(&["systemctl", "reload", &unit]).await;
        assert!(!done.is_ok, "it cannot follow this");
        says("PRIORITY=3", "the settings cannot be followed").await;
        let pid = machine.shows(&unit, "MainPID").await;
        machine.run(&["kill", "-HUP", &pid]).await;
        says("PRIORITY=3", "log filter: not reloaded").await;
        machine
            .comes(&unit, "ActiveState", |now| now == "active")
            .await;
        assert_eq!(
            machine.shows(&unit, "MainPID").await,
            pid,
            "the process was replaced"
        );
    });
}

#[test]
fn credentials_come_from_the_credstore_and_mistakes_are_told() {
    Machine::run_test(&[], async |machine| {
        machine.start().await;
        let unit = unit(Users);
        machine
            .sh("mkdir -p /etc/credstore && echo nonsense >/etc/credstore/headwater-users.nats.creds")
            .await;
        let done = machine.try_run(&["systemctl", "restart", &unit]).await;
        assert!(!done.is_ok, "it cannot start with these");
        let said = machine.sh(&format!("journalctl -q -u {unit}")).await;
        let file = format!("/run/credentials/{unit}/nats.creds");
        assert!(
            said.contains(&format!("read the NATS credentials {file}")),
            "{said}"
        );
        assert_eq!(machine.shows(&unit, "ExecMainStatus").await, "1");
        machine
            .sh("rm /etc/credstore/headwater-users.nats.creds")
            .await;
        machine
            .comes(&unit, "ActiveState", |now| now == "active")
            .await;
    });
}

#[test]
fn nothing_is_left_of_a_machine() {
    let Some(machine) = Machine::boot(&[]) else {
        return;
    };
    let left = machine.traces();
    assert!(left.iter().all(|trace| trace.exists()), "{left:?}");
    drop(machine);
    let deadline = std::time::Instant::now() + PATIENCE;
    while left.iter().any(|trace| trace.exists()) {
        assert!(std::time::Instant::now() < deadline, "{left:?}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}
