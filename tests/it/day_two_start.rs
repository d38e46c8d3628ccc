//! Wrong settings, taken ports, and processes that are stopped at their first instant. The tests
//! follow the documents and do nothing else.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use e2e::faults::can_make_namespaces;
use e2e::hammer::{Hammer, Target};
use e2e::systemd::{Done, Machine, UNITS, unit};
use e2e::{PATIENCE, Service, eventually, programs};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use Service::Orders;

/// Restarts so quickly that systemd's default start limit would be exceeded at once.
const SOON: &str = "[Service]\nRestartSec=100ms\n";

#[test]
fn what_keeps_a_service_down_is_told_and_once_it_is_mended_all_goes_on() {
    let soon = [
        ("headwater-orders.service", SOON),
        ("headwater-nats.service", SOON),
    ];
    Machine::run_test(&soon, async |machine| {
        machine.start().await;
        a_wrong_setting(machine).await;
        a_wrong_setting_of_the_broker(machine).await;
        a_job_that_failed(machine).await;
        half_a_request(machine).await;
        a_taken_port(machine, "headwater-orders.socket", Orders.port()).await;
        a_taken_port(
            machine,
            "headwater-orders-admin.socket",
            Orders.port() + 1000,
        )
        .await;
        is_well(machine).await;
    });
}

async fn doctor(machine: &Machine) -> Done {
    machine.try_run(&["headwater", "doctor"]).await
}

/// Waits until `headwater doctor` fails with all of `words`.
async fn finds(machine: &Machine, words: &[&str]) {
    eventually(&format!("the doctor to say {words:?}"), async || {
        let done = doctor(machine).await;
        let all_said = words.iter().all(|words| done.text.contains(words));
        if all_said && !done.is_ok {
            return Ok(());
        }
        Err(done.text)
    })
    .await;
}

/// Asserts that everything runs, and that the doctor agrees.
async fn is_well(machine: &Machine) {
    eventually("the doctor to be content", async || {
        let done = doctor(machine).await;
        if done.is_ok && done.text.contains("all 13 systemd units are up") {
            return Ok(());
        }
        Err(done.text)
    })
    .await;
    for unit in UNITS {
        assert_eq!(machine.shows(unit, "ActiveState").await, "active", "{unit}");
    }
}

async fn pid(machine: &Machine, unit: &str) -> String {
    machine.shows(unit, "MainPID").await
}

/// Waits until a unit has restarted more often than any limit of systemd would allow.
async fn is_tried_again_and_again(machine: &Machine, unit: &str) {
    machine
        .comes(unit, "NRestarts", |count| {
            count.parse::<u32>().is_ok_and(|count| count > 12)
        })
        .await;
}

async fn a_wrong_setting(machine: &Machine) {
    let unit = unit(Orders);
    let calls = Hammer::begin(
        2,
        vec![Target {
            address: ([127, 0, 0, 1], Orders.port()).into(),
            line: "GET /readyz",
            body: "",
        }],
    );
    let before = pid(machine, &unit).await;
    machine
        .sh("echo HEADWATER_DRAIN_TIMEOUT=soon >>/etc/headwater/orders.env")
        .await;
    // The documented way checks first: the service keeps running.
    let way = "systemctl reload headwater-orders && systemctl restart headwater-orders";
    let done = machine.try_run(&["bash", "-c", way]).await;
    assert!(!done.is_ok, "{}", done.text);
    assert_eq!(
        pid(machine, &unit).await,
        before,
        "the process was replaced"
    );
    let said = "invalid value 'soon' for '--drain-timeout <DURATION>': must be a number of seconds, or numbers with units, such as 500ms or 1m30s \
                (HEADWATER_DRAIN_TIMEOUT)";
    let found = machine.journal(&["-u", &unit, "-p", "err"]).await;
    assert!(found.iter().any(|entry| has(entry, said)), "{found:?}");

    // An operator restarts it anyway, and clients continue to call.
    let done = machine.try_run(&["systemctl", "restart", &unit]).await;
    assert!(!done.is_ok, "it cannot start with this");
    assert_eq!(machine.shows(&unit, "ExecMainStatus").await, "2");
    is_tried_again_and_again(machine, &unit).await;
    let told = "headwater-orders.service keeps exiting and being restarted";
    finds(machine, &[told, said, "-> fix the cause"]).await;
    for socket in ["headwater-orders.socket", "headwater-orders-admin.socket"] {
        assert_eq!(machine.shows(socket, "ActiveState").await, "active");
    }

    machine
        .sh("sed -i /HEADWATER_DRAIN_TIMEOUT=soon/d /etc/headwater/orders.env")
        .await;
    machine
        .comes(&unit, "ActiveState", |now| now == "active")
        .await;
    let answered = calls.answered();
    eventually("more calls to be answered", async || {
        let now = calls.answered();
        if now > answered + 20 {
            Ok(())
        } else {
            Err(now)
        }
    })
    .await;
    // No client was refused or reset.
    calls.end().await;
    is_well(machine).await;
}

fn has(entry: &Value, words: &str) -> bool {
    let message = entry["MESSAGE"].as_str().unwrap_or_default();
    message.contains(words)
}

async fn a_wrong_setting_of_the_broker(machine: &Machine) {
    let unit = "headwater-nats.service";
    let before = pid(machine, unit).await;
    machine
        .sh("echo 'max_payload: {' >>/etc/headwater/nats.conf")
        .await;
    let way =
        format!("$(systemctl cat {unit} | sed -n s/^ExecStartPre=//p) && systemctl restart {unit}");
    let done = machine.try_run(&["bash", "-c", &way]).await;
    assert!(!done.is_ok, "it cannot follow this");
    assert_eq!(pid(machine, unit).await, before, "the process was replaced");

    let done = machine.try_run(&["systemctl", "restart", unit]).await;
    assert!(!done.is_ok, "it cannot start with this");
    is_tried_again_and_again(machine, unit).await;
    let told = "headwater-nats.service keeps exiting and being restarted";
    finds(machine, &[told, "nats-server: Parse error on line "]).await;

    machine
        .sh("sed -i '/max_payload: {/d' /etc/headwater/nats.conf")
        .await;
    is_well(machine).await;
}

/// A failed nightly job is visible.
async fn a_job_that_failed(machine: &Machine) {
    let job = "headwater-backup.service";
    let fails = format!(
        "mkdir -p /run/systemd/system/{job}.d
         printf '[Service]\\nExecStart=\\nExecStart=sh -c \"echo the shelf; echo is full; false\"\\n' >/run/systemd/system/{job}.d/fails.conf
         systemctl daemon-reload"
    );
    machine.sh(&fails).await;
    let done = machine.try_run(&["systemctl", "start", job]).await;
    assert!(!done.is_ok, "{}", done.text);
    let told = format!("{job} failed (exit-code): the shelf is full");
    finds(machine, &[&told, &format!("systemctl start {job}")]).await;
    let repair = format!("rm -r /run/systemd/system/{job}.d; systemctl daemon-reload");
    machine.sh(&repair).await;
    machine.run(&["systemctl", "start", job]).await;
    is_well(machine).await;
}

/// A client has sent half a request when the service stops.
async fn half_a_request(machine: &Machine) {
    let mut half = TcpStream::connect(("127.0.0.1", Orders.port())).unwrap();
    half.write_all(b"POST /orders HTTP/1.1\r\nHost: loc")
        .unwrap();
    let begun = Instant::now();
    stop_orders(machine).await;
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(8), "{took:?}");
    let unit = unit(Orders);
    for (property, expected) in [("Result", "success"), ("ExecMainStatus", "0")] {
        let shown = machine.shows(&unit, property).await;
        assert_eq!(shown, expected, "{property}");
    }
}

async fn stop_orders(machine: &Machine) {
    let sockets = "systemctl stop 'headwater-orders*.socket' headwater-orders.service";
    machine.sh(sockets).await;
}

/// Another program has taken the port of a socket.
async fn a_taken_port(machine: &Machine, socket: &str, port: u16) {
    stop_orders(machine).await;
    let squat =
        format!("systemd-run -q --unit=squatter python3 -m http.server --bind 127.0.0.1 {port}");
    machine.sh(&squat).await;
    eventually("the port to be taken", async || {
        TcpStream::connect(("127.0.0.1", port)).map(drop)
    })
    .await;
    machine
        .try_run(&["systemctl", "start", "headwater.target"])
        .await;
    let told = format!("{socket} does not listen on 127.0.0.1:{port} (resources)");
    let holder = "the port is taken by python3 (process ";
    let advice = "then `systemctl start headwater.target`";
    finds(machine, &[&told, holder, advice]).await;
    // Calls at the other port must not start a service that cannot start.
    for _ in 0..10 {
        drop(TcpStream::connect(("127.0.0.1", Orders.port())));
    }

    machine.run(&["systemctl", "stop", "squatter"]).await;
    machine
        .run(&["systemctl", "start", "headwater.target"])
        .await;
    is_well(machine).await;
}

/// The program of `orders`, with its own folder.
fn orders(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(programs().join("headwater-orders"));
    command
        .env_clear()
        .current_dir(folder)
        .args(args)
        .stdin(Stdio::null());
    command
}

/// The exit code of a program and its lines on standard error, which must be JSON.
fn ended(output: &Output) -> (Option<i32>, Vec<Value>) {
    let text = String::from_utf8_lossy(&output.stderr);
    let line = |line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"));
    (output.status.code(), text.lines().map(line).collect())
}

#[test]
fn settings_are_checked_without_a_start() {
    let folder = TempDir::new().unwrap();
    // The ports of a running service.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let check = |args: &[&str]| {
        let args = [
            &[
                "--check",
                "--listen",
                &*address,
                "--admin-listen",
                &*address,
            ],
            args,
        ]
        .concat();
        ended(&orders(folder.path(), &args).output().unwrap())
    };
    assert_eq!(check(&[]), (Some(0), Vec::new()));
    fs::write(folder.path().join("file"), "").unwrap();
    for (args, said) in [
        (["--drain-timeout", "soon"], "(HEADWATER_DRAIN_TIMEOUT)"),
        (
            ["--log", "loud=nonsense"],
            "read the log filter `loud=nonsense`",
        ),
        (
            ["--nats-creds", "missing"],
            "read the NATS credentials missing",
        ),
        (["--nats-ca", "file"], "file"),
        (["--nats-url", "http://broker"], "http://broker"),
        (["--database", "file/orders.db"], "write in the folder file"),
        (["--otlp-endpoint", "collector"], "read the OTLP endpoint"),
        (
            ["--webhook-url", "https://ada:secret@example.com"],
            "must have no user name and no password",
        ),
        (
            ["--webhook-url", "https://example.com"],
            "needs --webhook-secret-file",
        ),
    ] {
        let (code, lines) = check(&args);
        assert_eq!(code, Some(2), "{args:?}: {lines:?}");
        let [line] = &*lines else {
            panic!("{args:?}: {lines:?}")
        };
        assert_eq!(line["level"], "ERROR");
        let error = line["error"].as_str().unwrap();
        assert!(error.contains(said), "{args:?}: {error}");
        assert!(!error.contains("secret@"), "{error}");
        assert!(!folder.path().join("orders.db").exists());
        starts_to_fail(&args, error);
    }
}

/// A start reports the same `error` as the check, as an ERROR line in JSON.
fn starts_to_fail(args: &[&str], error: &str) {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("file"), "").unwrap();
    let args = [args, &["--listen", "127.0.0.1:0"]].concat();
    let (code, lines) = ended(&orders(folder.path(), &args).output().unwrap());
    assert!(matches!(code, Some(1 | 2)), "{args:?}: {lines:?}");
    let last = lines.last().unwrap();
    assert_eq!(last["level"], "ERROR", "{last}");
    // The error of `--database` may differ: only a start really creates the file.
    if !args.contains(&"--database") {
        assert_eq!(last["error"], error, "{args:?}");
    }
}

#[test]
fn a_port_that_is_taken_ends_a_start_with_an_error_that_names_it() {
    let folder = TempDir::new().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, lines) = ended(
        &orders(folder.path(), &["--listen", &address])
            .output()
            .unwrap(),
    );
    assert_eq!(code, Some(1), "{lines:?}");
    let [line] = &*lines else { panic!("{lines:?}") };
    assert_eq!(line["level"], "ERROR");
    let error = line["error"].as_str().unwrap();
    assert!(error.contains(&format!("listen on {address}")), "{error}");
}

/// A process 1 of its own namespace, as in a container.
struct First {
    unshare: Child,
    /// Its id on this machine.
    pid: Pid,
}

impl First {
    async fn start(program: &mut Command) -> Self {
        let unshare = program.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let unshare = unshare.unwrap();
        let children = format!("/proc/{0}/task/{0}/children", unshare.id());
        let pid = eventually("a process 1", async || {
            let children = fs::read_to_string(&children).unwrap_or_default();
            let pid = children.trim().parse().ok().and_then(Pid::from_raw);
            pid.ok_or(children)
        })
        .await;
        Self { unshare, pid }
    }

    /// Its exit code.
    async fn ended(&mut self) -> Option<i32> {
        eventually("process 1 to end", || {
            let ended = self.unshare.try_wait().unwrap();
            std::future::ready(
                ended
                    .ok_or("process 1 has not ended")
                    .map(|status| status.code()),
            )
        })
        .await
    }
}

impl Drop for First {
    fn drop(&mut self) {
        // All processes of a namespace end with the first one.
        let _ = self.unshare.kill();
        let _ = self.unshare.wait();
    }
}

/// A command that starts `program` as process 1.
fn as_first(program: &Command) -> Command {
    let mut unshare = Command::new("unshare");
    unshare
        .args(["--pid", "--fork", "--kill-child=KILL"])
        .arg(program.get_program())
        .args(program.get_args())
        .current_dir(program.get_current_dir().unwrap());
    unshare
}

#[tokio::test]
async fn a_service_that_is_process_1_obeys_a_signal_that_comes_before_its_settings_are_read() {
    if !can_make_namespaces() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let filter = folder.path().join("filter");
    rustix::fs::mkfifoat(rustix::fs::CWD, &filter, 0o600.into()).unwrap();
    let args = ["--listen", "127.0.0.1:0", "--log-filter-file", "filter"];
    let mut first = First::start(&mut as_first(&orders(folder.path(), &args))).await;
    // A FIFO opens when the service starts to read its settings.
    let writing = tokio::task::spawn_blocking(|| OpenOptions::new().write(true).open(filter));
    let writing = tokio::time::timeout(PATIENCE, writing).await.unwrap();
    let mut writing = writing.unwrap().unwrap();
    kill_process(first.pid, Signal::TERM).unwrap();
    writing.write_all(b"info\n").unwrap();
    drop(writing);
    assert_eq!(first.ended().await, Some(0));
}

#[tokio::test]
async fn the_tool_that_is_process_1_obeys_a_signal() {
    if !can_make_namespaces() {
        return;
    }
    let folder = TempDir::new().unwrap();
    // A broker that never sends anything.
    let broker = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("nats://{}", broker.local_addr().unwrap());
    let mut tool = Command::new(programs().join("headwater"));
    tool.args(["--server", &url, "--timeout", "10m", "status"])
        .current_dir(folder.path());
    let mut first = First::start(&mut as_first(&tool)).await;
    let (connected, _) = broker.accept().unwrap();
    kill_process(first.pid, Signal::TERM).unwrap();
    assert_eq!(first.ended().await, Some(130));
    drop(connected);
}
