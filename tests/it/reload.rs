//! SIGHUP: what a running service reloads.

use std::ffi::OsString;
use std::fs;
use std::process::Command;

use e2e::faults::{logged, says};
use e2e::hammer::{Hammer, Target};
use e2e::locked::Locked;
use e2e::{Service, World, eventually};

use Service::Users;

fn registrations(world: &World) -> Target {
    let client = world.client(Users);
    Target {
        address: client.base().trim_start_matches("http://").parse().unwrap(),
        line: "POST /users",
        body: r#"{"name": "Ada", "email": "ada-#@example.com"}"#,
    }
}

/// Replaces the value of a flag.
fn instead(command: &mut Command, flag: &str, value: &str) {
    let mut args: Vec<OsString> = command.get_args().map(OsString::from).collect();
    let at = args.iter().position(|arg| arg == flag).unwrap() + 1;
    args[at] = value.into();
    let mut changed = Command::new(command.get_program());
    changed
        .args(args)
        .current_dir(command.get_current_dir().unwrap());
    for (name, value) in command.get_envs() {
        changed.env(name, value.unwrap_or_default());
    }
    *command = changed;
}

/// Waits until the service has logged `count` lines at `level` with `words` in them.
async fn logs(world: &World, level: &str, words: &str, count: usize) {
    eventually(&format!("{count} times {level} {words}"), async || {
        let lines = logged(world, Users, level, words);
        if lines.len() >= count {
            Ok(())
        } else {
            Err(world.log(Users))
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hangup_reads_the_log_filter_anew_and_a_broken_one_changes_nothing() {
    let mut world = World::on_host().empty();
    let filter = world.folder().join("filter");
    fs::write(&filter, "# as it is by itself\ninfo\nasync_nats=off\n").unwrap();
    world
        .run_with(Users, |command| {
            command.arg("--log-filter-file").arg(&filter);
        })
        .await;
    let load = Hammer::begin(1, vec![registrations(&world)]);
    world.process(Users).hang_up();
    logs(&world, "INFO", "log filter: unchanged", 1).await;
    assert!(logged(&world, Users, "DEBUG", "").is_empty());

    fs::write(&filter, "info,headwater=debug,headwater::http=debug").unwrap();
    world.process(Users).hang_up();
    logs(&world, "INFO", "log filter: reloaded", 1).await;
    // The service logs a broken connection at `debug`.
    let address = registrations(&world).address;
    let broken = std::net::TcpStream::connect(address).unwrap();
    std::io::Write::write_all(&mut &broken, b"nonsense\r\n\r\n").unwrap();
    logs(&world, "DEBUG", "connection ended", 1).await;

    for (nonsense, count) in [("info,headwater=loud", 1), ("# nothing but this", 2)] {
        fs::write(&filter, nonsense).unwrap();
        world.process(Users).hang_up();
        logs(&world, "ERROR", "not reloaded", count).await;
    }
    let before = logged(&world, Users, "DEBUG", "connection ended").len();
    let broken = std::net::TcpStream::connect(address).unwrap();
    std::io::Write::write_all(&mut &broken, b"nonsense\r\n\r\n").unwrap();
    logs(&world, "DEBUG", "connection ended", before + 1).await;
    assert!(load.end().await > 0);
    world.stop(Users).await;
    world.abandon();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hangup_reads_nats_credentials_and_root_anew_and_broken_ones_change_nothing() {
    let mut world = World::on_host().empty();
    let mut locked = Locked::start();
    let (creds, ca) = (world.folder().join("creds"), world.folder().join("ca"));
    fs::write(&creds, locked.credentials_of_a_stranger()).unwrap();
    fs::copy(locked.root(), &ca).unwrap();
    world
        .run_with(Users, |command| {
            instead(command, "--nats-url", &locked.url());
            command
                .arg("--nats-creds")
                .arg(&creds)
                .arg("--nats-ca")
                .arg(&ca);
        })
        .await;
    let load = Hammer::begin(1, vec![registrations(&world)]);
    let users = world.client(Users);
    logs(&world, "WARN", "authorization violation", 1).await;
    says(&users, "relay", "degraded", "login refused: credentials").await;

    fs::write(&creds, locked.credentials()).unwrap();
    world.process(Users).hang_up();
    says(&users, "relay", "ok", "").await;

    // With new credentials, a connected service reconnects.
    let connected = || logged(&world, Users, "INFO", "connected to NATS").len();
    let before = connected();
    fs::write(&creds, locked.credentials()).unwrap();
    world.process(Users).hang_up();
    logs(&world, "INFO", "connected to NATS", before + 1).await;
    says(&users, "relay", "ok", "").await;

    // Broken files are not used, not even by later connections.
    for (file, what) in [
        (&creds, "the NATS credentials"),
        (&ca, "the NATS certificate or key"),
    ] {
        let right = fs::read_to_string(file).unwrap();
        fs::write(file, "-----BEGIN NONSENSE-----\n").unwrap();
        world.process(Users).hang_up();
        logs(&world, "ERROR", what, 1).await;
        let before = logged(&world, Users, "INFO", "connected to NATS").len();
        locked.restart();
        logs(&world, "INFO", "connected to NATS", before + 1).await;
        says(&users, "relay", "ok", "").await;
        fs::write(file, right).unwrap();
    }

    locked.change_root();
    locked.restart();
    logs(&world, "WARN", "cannot connect to NATS", 1).await;
    says(&users, "relay", "degraded", "not connected").await;
    fs::copy(locked.root(), &ca).unwrap();
    world.process(Users).hang_up();
    says(&users, "relay", "ok", "").await;
    assert!(load.end().await > 0);
    world.stop(Users).await;
    world.abandon();
}
