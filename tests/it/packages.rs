//! The Debian packages on a machine: installed, upgraded, removed, purged. Needs root and systemd.

use std::path::Path;
use std::process::Command;

use e2e::installed::repository;
use e2e::systemd::{Machine, unit};
use e2e::{Service, eventually, programs};
use tempfile::TempDir;

use crate::locked_down::{RUNNING, section};
use crate::systemd::{is_shown, visit};

/// Builds the packages of a version into a folder.
fn pack(version: &str, folder: &Path) {
    let output = Command::new(repository().join("deploy/deb/build"))
        .args([programs(), folder])
        .env("VERSION", version)
        .env("NATS_SERVER", broker::find(&|_| {}).unwrap().path)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
}

/// The paths that a purge removes.
const PURGED: &str = "/etc/headwater /var/lib/headwater /usr/lib/headwater /usr/share/doc/headwater \
                      /etc/credstore/headwater* /root/.config/nats/context/headwater.json \
                      /usr/lib/systemd/system/headwater* /usr/bin/headwater* /usr/lib/sysusers.d/headwater.conf";

/// A folder with the packages of two versions.
fn packed() -> Result<TempDir, String> {
    let tool = Command::new("dpkg-deb").arg("--version").output();
    tool.map_err(|error| format!("dpkg-deb: {error}"))?;
    let files = TempDir::new().unwrap();
    pack("0.0.1", &files.path().join("root/before"));
    pack("0.0.2", &files.path().join("root/now"));
    Ok(files)
}

#[test]
fn packages_are_installed_upgraded_removed_and_purged() {
    Machine::run_test_over(packed, async |machine| {
        machine.sh("dpkg -i /root/before/*.deb").await;
        let enable = "systemctl enable --now headwater.target";
        machine.run(&["bash", "-c", enable]).await;
        let ada = visit(machine, "ada").await;
        is_shown(machine, "ada", &ada).await;
        machine
            .sh("test -e /usr/share/man/man1/headwater.1.gz")
            .await;
        machine
            .sh("test -e /usr/share/doc/headwater/docs/operations.md")
            .await;
        machine
            .sh("test -e /usr/share/doc/headwater/deploy/prometheus/alerts.yml")
            .await;

        machine
            .sh("echo HEADWATER_DRAIN_TIMEOUT=9s >>/etc/headwater/users.env")
            .await;
        let kept = "cat /etc/headwater/users.env /etc/headwater/operator.env /etc/headwater/secrets/passwords/*";
        let before = machine.sh(kept).await;
        let pid = machine.shows(&unit(Service::Users), "MainPID").await;
        machine.sh("dpkg -i /root/now/*.deb").await;
        assert_eq!(machine.sh(kept).await, before);
        let now = machine.shows(&unit(Service::Users), "MainPID").await;
        assert_eq!(now, pid, "a package restarts nothing");
        let upgrade = section("## Upgrade");
        let (_, restarts) = upgrade.split_once("just install /usr/local\n").unwrap();
        let (restarts, verify) = restarts.split_once("headwater verify").unwrap();
        assert_eq!(verify.trim(), "");
        machine.sh(restarts).await;
        // On a busy machine a service may not be connected yet.
        eventually("all to agree", async || {
            let done = machine.try_run(&["headwater", "verify"]).await;
            if done.is_ok { Ok(()) } else { Err(done.text) }
        })
        .await;
        is_shown(machine, "ada", &ada).await;

        machine
            .sh("dpkg -r $(dpkg-query -W -f '${Package} ' 'headwater*')")
            .await;
        assert_eq!(machine.sh(RUNNING).await, "");
        assert_eq!(machine.sh(kept).await, before);
        machine
            .sh("test -e /var/lib/headwater/users/users.db -a -e /etc/headwater/nats.conf")
            .await;
        machine
            .sh("dpkg -i /root/now/*.deb && systemctl enable --now headwater.target")
            .await;
        is_shown(machine, "ada", &ada).await;

        machine
            .sh("dpkg -P $(dpkg-query -W -f '${Package} ' 'headwater*')")
            .await;
        let left = machine
            .sh(&format!("ls -d {PURGED} 2>/dev/null || true"))
            .await;
        assert_eq!(left, "", "a purge leaves nothing");
        eventually("no unit to be left", async || {
            let units = "systemctl list-units --all --no-legend 'headwater*'";
            let units = machine.sh(units).await;
            if units.is_empty() { Ok(()) } else { Err(units) }
        })
        .await;
    });
}
