//! How secure `just install` makes a machine: a broker that requires a login, and files that other
//! users cannot read. Needs root and systemd.

use e2e::Service::{Orders, Purchases, Users};
use e2e::systemd::{Done, Machine, UNITS, unit};
use serde_json::Value;

use crate::systemd::{is_shown, visit};

/// Runs the operator's tool as an unprivileged user of the machine.
async fn as_nobody(machine: &Machine, line: &str) -> Done {
    let user = "setpriv --reuid=nobody --regid=nogroup --clear-groups env HOME=/";
    let line = format!("{user} headwater {line}");
    machine.try_run(&["bash", "-c", &line]).await
}

/// Asserts that an unprivileged user cannot log in.
async fn is_locked(machine: &Machine) {
    for line in ["status", "projection pause purchases --reason mischief"] {
        let done = as_nobody(machine, line).await;
        assert!(!done.is_ok, "{line}: {}", done.text);
        assert!(done.text.contains("login refused"), "{}", done.text);
    }
}

/// A refused command names the user to log in as.
async fn is_told_who_may(machine: &Machine) {
    for (user, line, words) in [
        (
            "admin",
            "doctor",
            "not enabled for the account of this user; log in as the operator or the viewer",
        ),
        (
            "viewer",
            "stream restore orders --yes",
            "this user may not, nothing was done; log in as the operator",
        ),
    ] {
        let line = format!("set -a; . /etc/headwater/{user}.env; headwater {line}");
        let done = machine.try_run(&["bash", "-c", &line]).await;
        assert!(!done.is_ok && done.text.contains(words), "{}", done.text);
    }
}

#[test]
fn the_broker_lets_in_whom_the_installation_knows_and_nobody_else() {
    Machine::run_test(&[], async |machine| {
        machine.start().await;
        let ada = visit(machine, "ada").await;
        is_shown(machine, "ada", &ada).await;
        let provisioned = machine.tool("provision --dry-run").await;
        assert!(provisioned.ends_with("nothing to do"), "{provisioned}");

        is_locked(machine).await;
        is_told_who_may(machine).await;
        // Only the login was missing.
        let pause = "projection pause purchases --reason mine";
        machine.tool(pause).await;
        machine.tool("projection resume purchases").await;

        let folders = "/var/lib/headwater/*/ /etc/credstore /etc/headwater/secrets";
        let files = "/etc/headwater/{operator,viewer,admin}.env /root/.config/nats";
        let open = format!("find {folders} {files} -not -type l -perm /077");
        assert_eq!(machine.sh(&open).await, "", "others may reach these");

        let made = "cat /etc/headwater/secrets/* /etc/headwater/*.env /root/.config/nats/context/*";
        let before = machine.sh(&format!("{made} 2>&1 || true")).await;
        machine.run(&["/usr/local/lib/headwater/setup"]).await;
        let after = machine.sh(&format!("{made} 2>&1 || true")).await;
        assert_eq!(after, before, "a second run changes secrets");

        let disk = "systemctl stop headwater-nats; rm -r /var/lib/headwater/nats/*; systemctl start headwater-nats";
        machine.sh(disk).await;
        let bob = visit(machine, "bob").await;
        is_shown(machine, "bob", &bob).await;

        let former = machine.sh(PASSWORD).await;
        machine.sh(&section("### A new password")).await;
        machine
            .sh(&format!("until {PROVISION}; do sleep 0.2; done"))
            .await;
        let stale = format!("NATS_USER=operator NATS_PASSWORD={former} headwater status");
        let stale = machine.try_run(&["bash", "-c", &stale]).await.text;
        assert!(stale.contains("login refused"), "{stale}");

        with_tls(machine).await;
        let eve = visit(machine, "eve").await;
        is_shown(machine, "eve", &eve).await;
        // A client that probes for TLS disconnects in order. To the microsecond: within the same
        // second, the old password was refused.
        let since = machine.sh("date +%s.%6N").await;
        machine.sh(PROVISION).await;
        machine
            .run(&["systemctl", "restart", "headwater-orders"])
            .await;
        let since = format!("--since=@{since}");
        let entries = machine.journal(&["-u", "headwater-nats", &since]).await;
        let is_error = |entry: &Value| entry["MESSAGE"].to_string().contains("[ERR]");
        assert!(!entries.iter().any(is_error), "{entries:?}");
        let info = machine.sh("head -n 1 </dev/tcp/127.0.0.1/4222").await;
        assert!(info.contains("\"tls_required\":true"), "{info}");
        // The monitoring endpoint, which lists the connections, is closed.
        let varz = ["curl", "-s", "http://127.0.0.1:8222/varz"];
        assert!(!machine.try_run(&varz).await.is_ok);

        // A new password keeps the root certificate in the operator's settings.
        machine.sh(&section("### A new password")).await;
        machine
            .sh(&format!(
                "timeout 60 bash -c 'until {PROVISION}; do sleep 0.2; done'"
            ))
            .await;
    });
}

/// Prints the operator's password.
const PASSWORD: &str = ". /etc/headwater/operator.env; echo $NATS_PASSWORD";

/// Succeeds if the operator can log in.
const PROVISION: &str = "headwater provision --dry-run --wait 5s";

/// Follows the section about TLS in deploy/systemd/README.md.
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
        let is_active = |now: &str| now == "active";
        machine.comes(service, "ActiveState", is_active).await;
    }
}

/// The commands below a heading of deploy/systemd/README.md.
pub(crate) fn section(heading: &str) -> String {
    let readme = include_str!("../../deploy/systemd/README.md");
    let (_, text) = readme.split_once(&format!("\n{heading}\n")).unwrap();
    let (_, code) = text.split_once("```sh\n").unwrap();
    code.split_once("```").unwrap().0.to_owned()
}

/// The command that installs this version on a machine from a copy of the repository.
const INSTALL: &str = "cd /root/headwater && NATS_SERVER=/usr/local/lib/headwater/nats-server \
                       deploy/systemd/install.sh install /usr/local /usr/local/bin";

/// Lists the running processes of Headwater.
pub(crate) const RUNNING: &str = "grep -sE '^(headwater|nats-server)' /proc/[0-9]*/comm || true";

/// Turns the units into those from before there were fixed users.
const DYNAMIC: &str = "[Service]\nDynamicUser=yes\n";

#[test]
fn an_installation_with_dynamic_users_and_an_open_broker_is_upgraded_and_locked() {
    let before = [("headwater-.service", DYNAMIC)];
    Machine::run_bare_test(&before, async |machine| {
        let forget = "sed -i /^include/d /etc/headwater/nats.conf
            sed -i /headwater/d /etc/{passwd,group,shadow,gshadow}";
        machine.sh(forget).await;
        machine.start().await;
        let ada = visit(machine, "ada").await;
        is_shown(machine, "ada", &ada).await;
        machine
            .sh("test -e /var/lib/private/headwater/users/users.db")
            .await;

        machine
            .sh("rm -r /etc/systemd/system/headwater-.service.d")
            .await;
        let said = machine.sh(INSTALL).await;
        assert!(said.contains("kept /etc/headwater/nats.conf"), "{said}");
        machine.sh("systemctl restart headwater-nats headwater-users headwater-products headwater-orders headwater-purchases").await;
        is_shown(machine, "ada", &ada).await;
        machine
            .sh("systemctl stop 'headwater-users*.socket' headwater-users")
            .await;
        let owner = "stat -c '%U %a' /var/lib/headwater/users/users.db";
        assert_eq!(machine.sh(owner).await, "headwater-users 600");
        machine.start().await;
        let seen = as_nobody(machine, "status").await.text;
        assert!(seen.contains("STREAM"), "it stays open: {seen}");

        machine
            .sh(&section("### From an open broker to accounts"))
            .await;
        is_locked(machine).await;
        let eve = visit(machine, "eve").await;
        is_shown(machine, "eve", &eve).await;
        is_shown(machine, "ada", &ada).await;
        for service in [Users, Orders, Purchases] {
            let is_well = |status: &str| status.ends_with("components ok");
            machine.comes(&unit(service), "StatusText", is_well).await;
        }

        let uninstall = "/root/headwater/deploy/systemd/install.sh uninstall /usr/local";
        let output = machine.sh(uninstall).await;
        assert_eq!(machine.sh(RUNNING).await, "");
        for left in [
            "/var/lib/headwater",
            "/etc/headwater/secrets",
            "/etc/credstore/headwater*",
        ] {
            assert!(output.contains(left), "{left}: {output}");
            machine.sh(&format!("ls -d {left}")).await;
        }
    });
}
