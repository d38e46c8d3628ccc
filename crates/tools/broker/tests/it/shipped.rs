//! The shipped configurations in `deploy/nats`.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use broker::{Watchdog, find};
use tempfile::TempDir;

use crate::run::free_port;
use crate::support::{folder, introduction};

const SERVERS: [&str; 3] = ["cluster-a.conf", "cluster-b.conf", "cluster-c.conf"];

/// A copy of the shipped folder.
fn copied() -> TempDir {
    let home = folder();
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../deploy/nats");
    for entry in fs::read_dir(shipped).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            fs::copy(entry.path(), home.path().join(entry.file_name())).unwrap();
        }
    }
    home
}

fn make_secrets(home: &TempDir, servers: &[String]) -> bool {
    let mut secrets = Command::new("sh");
    let secrets = secrets.arg("secrets.sh").args(servers);
    secrets
        .current_dir(home.path())
        .output()
        .unwrap()
        .status
        .success()
}

/// The server's output for a configuration, as an error if it is rejected.
fn check(home: &TempDir, file: &str) -> Result<(), String> {
    let mut server = Command::new(find(&|_| {}).unwrap().path);
    let checked = server.args(["-t", "-c", file]).current_dir(home.path());
    let checked = checked.output().unwrap();
    if checked.status.success() {
        return Ok(());
    }
    Err(String::from_utf8(checked.stderr).unwrap())
}

#[test]
fn every_shipped_configuration_is_taken_once_there_are_passwords() {
    let home = copied();
    let all = SERVERS.iter().chain(&["single.conf"]);
    for file in all.clone() {
        let without = check(&home, file).unwrap_err();
        assert!(without.contains(".conf"), "{without}");
    }
    assert!(make_secrets(&home, &[]));
    for file in all {
        assert_eq!(check(&home, file), Ok(()), "{file}");
    }
    let before = fs::read(home.path().join("passwords.conf")).unwrap();
    assert!(make_secrets(&home, &[]));
    let after = fs::read(home.path().join("passwords.conf")).unwrap();
    assert_eq!(after, before, "what is there stays");
}

#[test]
fn tls_is_taken_where_it_is_switched_on() {
    let home = copied();
    assert!(make_secrets(&home, &[]));
    for (file, switched) in [
        ("common.conf", "tls.conf"),
        ("cluster.conf", "cluster-tls.conf"),
    ] {
        let path = home.path().join(file);
        let off = format!("# include ./{switched}\n");
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.matches(&off).count(), 1, "{file}");
        fs::write(&path, text.replace(&off, &off[2..])).unwrap();
    }
    let without = check(&home, SERVERS[0]).unwrap_err();
    assert!(without.contains("server.crt"), "{without}");
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    for (file, text) in [
        ("server.crt", made.cert.pem()),
        ("ca.crt", made.cert.pem()),
        ("server.key", made.signing_key.serialize_pem()),
    ] {
        fs::write(home.path().join(file), text).unwrap();
    }
    for file in SERVERS.iter().chain(&["single.conf"]) {
        assert_eq!(check(&home, file), Ok(()), "{file}");
    }
}

/// Killed when the test ends, even if it fails.
struct Server(Child, Watchdog);

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _gone = self.0.kill().and_then(|()| self.0.wait());
        self.1.stand_down();
    }
}

#[test]
fn three_servers_with_the_shipped_configurations_are_a_cluster() {
    let home = copied();
    let ports: Vec<[u16; 3]> = (0..3).map(|_| [(); 3].map(|()| free_port())).collect();
    let routes: Vec<_> = ports
        .iter()
        .map(|of| format!("127.0.0.1:{}", of[2]))
        .collect();
    assert!(make_secrets(&home, &routes));
    let mut running = Vec::new();
    for (number, (file, [client, monitor, route])) in SERVERS.iter().zip(&ports).enumerate() {
        let path = home.path().join(file);
        let text = fs::read_to_string(&path).unwrap();
        let moved = text
            .replace(&format!(":{}\"", 4222 + number), &format!(":{client}\""))
            .replace(&format!(":{}\"", 8222 + number), &format!(":{monitor}\""))
            .replace(&format!(":{}\"", 6222 + number), &format!(":{route}\""));
        fs::write(&path, moved).unwrap();
        let child = Command::new(find(&|_| {}).unwrap().path)
            .args(["-c", file])
            .current_dir(home.path())
            .stderr(fs::File::create(home.path().join(format!("{file}.log"))).unwrap())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap();
        let watchdog = Watchdog::over(child.id()).unwrap();
        running.push(Server(child, watchdog));
    }
    for ([client, monitor, _], file) in ports.iter().zip(SERVERS) {
        let end = Instant::now() + Duration::from_mins(1);
        while !health(*monitor).contains("\"ok\"") {
            let log = fs::read_to_string(home.path().join(format!("{file}.log"))).unwrap();
            assert!(Instant::now() < end, "{}\n{log}", health(*monitor));
            std::thread::sleep(Duration::from_millis(20));
        }
        let info = introduction(*client).unwrap();
        assert!(info.contains("\"auth_required\":true"), "{info}");
        assert!(info.contains("\"cluster\":\"headwater\""), "{info}");
    }
}

/// A server's health; empty while it does not answer.
fn health(port: u16) -> String {
    let mut answer = String::new();
    if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) {
        stream.write_all(b"GET /healthz HTTP/1.0\r\n\r\n").unwrap();
        // A partial answer counts as none.
        let _ended = stream.read_to_string(&mut answer);
    }
    answer
}
