//! What `just install` makes of a machine by itself: a broker that knows who asks, and files that
//! nobody else reads. Needs root and systemd.

use e2e::Service::{Orders, Purchases, Users};
use e2e::systemd::{Machine, UNITS, unit};

use crate::systemd::{is_shown, visit};

/// Runs the operator's tool as a user of the machine who is nobody in particular.
const AS_NOBODY: &str = "setpriv --reuid=nobody --regid=nogroup --clear-groups env HOME=/ ";

#[test]
fn the_broker_lets_in_whom_the_installation_knows_and_nobody_else() {
    Machine::run_test(&[], async |machine| {
        machine.start().await;
        let ada = visit(machine, "ada").await;
        is_shown(machine, "ada", &ada).await;
        let provisioned = machine.tool("provision --dry-run").await;
        assert!(provisioned.ends_with("nothing to do"), "{provisioned}");

        for line in ["status", "projection pause purchases --reason mischief"] {
            let line = format!("{AS_NOBODY} headwater {line}");
            let done = machine.try_run(&["bash", "-c", &line]).await;
            assert!(
                !done.is_ok && done.text.contains("refuses the login"),
                "{}",
                done.text
            );
        }
        // It is the login that nobody lacks.
        machine
            .tool("projection pause purchases --reason mine")
            .await;
        machine.tool("projection resume purchases").await;

        let open = "find /var/lib/headwater/*/ /etc/credstore /etc/headwater/secrets /etc/headwater/operator.env \
                    /etc/headwater/viewer.env /etc/headwater/admin.env /root/.config/nats -not -type l -perm /077";
        assert_eq!(machine.sh(open).await, "", "others may reach these");

        let secrets = "cat /etc/headwater/secrets/passwords.conf /etc/headwater/*.env /root/.config/nats/context/*";
        let before = machine.sh(secrets).await;
        machine.run(&["/usr/local/lib/headwater/setup"]).await;
        assert_eq!(machine.sh(secrets).await, before, "nothing is made anew");

        with_tls(machine).await;
        let eve = visit(machine, "eve").await;
        is_shown(machine, "eve", &eve).await;
        machine.tool("provision --dry-run").await;
        machine
            .sh("curl -s http://127.0.0.1:8222/varz | grep '\"tls_required\": true'")
            .await;
    });
}

/// Does what deploy/systemd/README.md says of TLS.
async fn with_tls(machine: &Machine) {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    for (file, text) in [
        ("server.crt", made.cert.pem()),
        ("ca.pem", made.cert.pem()),
        ("server.key", made.signing_key.serialize_pem()),
    ] {
        machine.sh(&format!("cat >{file} <<'E'\n{text}E\n")).await;
    }
    machine.sh(&section("### TLS")).await;
    for service in UNITS {
        machine
            .comes(service, "ActiveState", |now| now == "active")
            .await;
    }
}

/// The commands that deploy/systemd/README.md has below a heading.
fn section(heading: &str) -> String {
    let readme = include_str!("../../deploy/systemd/README.md");
    let (_, text) = readme.split_once(&format!("\n{heading}\n")).unwrap();
    let (_, code) = text.split_once("```sh\n").unwrap();
    code.split_once("```").unwrap().0.to_owned()
}

/// Drop-ins that make of the units what they were.
const DYNAMIC: &str = "[Service]\nDynamicUser=yes\n";

#[test]
fn an_installation_with_dynamic_users_and_an_open_broker_is_upgraded_and_locked() {
    Machine::run_bare_test(&[("headwater-.service", DYNAMIC)], async |machine| {
        // As the version before fixed users left it.
        machine
            .sh("sed -i /^include/d /etc/headwater/nats.conf; sed -i /headwater/d /etc/passwd /etc/group /etc/shadow /etc/gshadow")
            .await;
        machine.start().await;
        let ada = visit(machine, "ada").await;
        is_shown(machine, "ada", &ada).await;
        let owner = machine
            .sh("stat -c %U /var/lib/private/headwater/users/users.db")
            .await;
        assert_eq!(owner, "headwater-users");

        machine
            .sh("rm -r /etc/systemd/system/headwater-.service.d && /usr/local/lib/headwater/setup && systemctl daemon-reload")
            .await;
        machine
            .run(&["systemctl", "restart", "headwater-*.service"])
            .await;
        is_shown(machine, "ada", &ada).await;
        machine
            .run(&[
                "systemctl",
                "stop",
                "headwater-users.socket",
                "headwater-users-admin.socket",
                &unit(Users),
            ])
            .await;
        let owner = machine
            .sh("stat -c '%U %a' /var/lib/headwater/users/users.db")
            .await;
        assert_eq!(owner, "headwater-users 600", "also while it is stopped");
        machine
            .run(&["systemctl", "start", "headwater.target"])
            .await;
        assert!(
            machine
                .try_run(&[
                    "bash",
                    "-c",
                    &format!("{AS_NOBODY} headwater provision --dry-run")
                ])
                .await
                .is_ok
        );

        machine
            .sh(&section("### From an open broker to accounts"))
            .await;
        let done = machine
            .try_run(&[
                "bash",
                "-c",
                &format!("{AS_NOBODY} headwater provision --dry-run"),
            ])
            .await;
        assert!(done.text.contains("refuses the login"), "{}", done.text);
        let eve = visit(machine, "eve").await;
        is_shown(machine, "eve", &eve).await;
        is_shown(machine, "ada", &ada).await;
        for service in [Users, Orders, Purchases] {
            machine
                .comes(&unit(service), "StatusText", |status| {
                    status.ends_with("parts ok")
                })
                .await;
        }
    });
}
