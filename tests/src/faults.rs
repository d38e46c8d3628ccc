//! What tests of faults share: the dose, what a service says of itself, and what needs root.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::client::Client;
use crate::eventually;
use crate::process::lines;
use crate::world::{Service, World};

/// `count`, as many times as `HEADWATER_DOSE` says: 1 in CI, more for long runs.
pub fn dose(count: usize) -> usize {
    let times = std::env::var("HEADWATER_DOSE").unwrap_or_else(|_| "1".to_owned());
    count * times.parse::<usize>().expect("HEADWATER_DOSE is a number")
}

/// The value of a metric in the exposition of a service; 0 when it is not there.
pub async fn metric(client: &Client, name: &str) -> f64 {
    let text = client.get("/metrics").await.text;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.map_or(0.0, |value| value.trim().parse().expect("a number"))
}

/// The lines at `level` that a service logged, whose text has `words` in it.
pub fn logged(world: &World, service: Service, level: &str, words: &str) -> Vec<Value> {
    lines(&world.log(service))
        .filter(|line| line["level"] == level)
        .filter(|line| line.to_string().contains(words))
        .collect()
}

/// Waits until the part `part` of a service is in the state `state`; what it says then.
pub async fn says(client: &Client, part: &str, state: &str, words: &str) -> String {
    eventually(&format!("{part} to be {state}: {words}"), || async {
        let parts = client.get("/readyz?verbose").await.json;
        let said = parts[part]["detail"].as_str().unwrap_or_default();
        if parts[part]["state"] == state && said.contains(words) {
            Ok(said.to_owned())
        } else {
            Err(parts.to_string())
        }
    })
    .await
}

/// Whether a test that needs `what`, which it found or not, can run. Where it cannot it says so;
/// with `HEADWATER_REQUIRE_ROOT=1`, as in CI, that is a failure.
fn can(what: &str, found: Result<(), String>) -> bool {
    can_or_must("HEADWATER_REQUIRE_ROOT", what, found)
}

/// As [`can`]; `variable` is 1 where it has to.
pub(crate) fn can_or_must(variable: &str, what: &str, found: Result<(), String>) -> bool {
    let Err(why) = found else { return true };
    let must = std::env::var(variable).is_ok_and(|value| value == "1");
    assert!(!must, "this test needs {what}: {why}");
    tell(&format!("DID NOT RUN: it needs {what}: {why}"));
    false
}

/// Says something about the test that runs, also where the output of tests is kept back.
pub fn tell(what: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    // Nobody to tell it to is no reason to fail.
    let _ = writeln!(std::io::stderr(), "{test}: {what}");
}

/// Runs a program to its end; its errors if it fails, or is not there.
fn run(program: &str, args: &[&str]) -> Result<(), String> {
    output(program, args).map(drop)
}

/// As [`run`]; what it wrote.
fn output(program: &str, args: &[&str]) -> Result<String, String> {
    let output = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{program}: {error}"))?;
    let text = |bytes| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() {
        return Ok(text(&output.stdout));
    }
    Err(format!(
        "{program} {}: {}",
        args.join(" "),
        text(&output.stderr)
    ))
}

/// Whether there is a strace that may trace.
pub fn can_trace() -> bool {
    let done = run("strace", &["-o", "/dev/null", "true"]);
    can("strace, and to trace processes", done)
}

/// Whether processes can be started in namespaces of their own.
pub fn can_make_namespaces() -> bool {
    let done = run("unshare", &["--pid", "--fork", "true"]);
    can("root, and namespaces", done)
}

/// Puts `command` under strace, which lets the `nth` fsync of each of its threads fail.
pub fn fail_fsync(command: &mut Command, nth: usize) {
    inject(command, &format!("error=EIO:when={nth}"));
}

/// Puts `command` under strace, which lets each fsync take `longer`.
pub fn slow_fsync(command: &mut Command, longer: Duration) {
    inject(command, &format!("delay_exit={}", longer.as_micros()));
}

fn inject(command: &mut Command, what: &str) {
    let mut traced = Command::new("strace");
    traced
        .args(["-f", "-o", "/dev/null", "-e", "trace=fsync,fdatasync", "-e"])
        .arg(format!("inject=fsync,fdatasync:{what}"))
        .arg(command.get_program())
        .args(command.get_args());
    for (name, value) in command.get_envs() {
        traced.env(name, value.unwrap_or_default());
    }
    *command = traced;
}

/// A file system of the test's own, which can be filled, enlarged, or cut off from its power.
/// Make it before the world that lives on it: what is made last goes first.
#[derive(Debug)]
pub struct Mount {
    /// Where it is mounted.
    point: TempDir,
    /// Of a loop image: where that is.
    image: Option<TempDir>,
}

impl Mount {
    /// A file system in memory, of a size as `mount` takes it. `None` where this process may not
    /// mount.
    pub fn tmpfs(size: &str) -> Option<Self> {
        let mount = Self::at(None);
        let size = format!("size={size}");
        let done = run(
            "mount",
            &["-t", "tmpfs", "-o", &size, "tmpfs", mount.text()],
        );
        can("root, and to mount a tmpfs", done).then_some(mount)
    }

    /// An ext4 of 512 MB in a file, whose power can be cut.
    pub fn ext4() -> Option<Self> {
        let mount = Self::at(Some(TempDir::new().expect("make a folder")));
        let image = mount.image_file();
        let done = run("truncate", &["-s", "512M", &image])
            .and_then(|()| run("mkfs.ext4", &["-q", &image]))
            .and_then(|()| mount.plug_in())
            .and_then(|()| run("python3", &["--version"]));
        can("root, loop mounts, e2fsprogs and python3", done).then_some(mount)
    }

    fn at(image: Option<TempDir>) -> Self {
        let point = TempDir::new().expect("make a folder");
        Self { point, image }
    }

    /// The folder of its files.
    pub fn path(&self) -> &Path {
        self.point.path()
    }

    fn text(&self) -> &str {
        self.path().to_str().expect("a path in UTF-8")
    }

    fn image_file(&self) -> String {
        let folder = self.image.as_ref().expect("a loop image");
        folder.path().join("disk.img").display().to_string()
    }

    fn plug_in(&self) -> Result<(), String> {
        run("mount", &["-o", "loop", &self.image_file(), self.text()])
    }

    /// Fills it to the last byte.
    pub fn fill(&self) {
        let filler = format!("of={}/filler", self.text());
        run("dd", &["if=/dev/zero", &filler, "bs=4k"]).expect_err("it is full in the end");
    }

    /// Gives a file system in memory another size.
    pub fn resize(&self, size: &str) {
        let size = format!("remount,size={size}");
        run("mount", &["-o", &size, self.text()]).expect("enlarge the tmpfs");
    }

    /// Shuts the file system down under whoever uses it, without a flush: what was not fsynced
    /// is gone, as with the plug pulled. Gives the moment just before, in milliseconds since 1970:
    /// the programs go on for a while, and what they say after it is worth nothing. (An fsync that
    /// is under way then may succeed for the kernel, although its transaction is thrown away.)
    pub fn cut(&self) -> i64 {
        let shutdown = "import fcntl, os, struct, sys, time\n\
                        folder = os.open(sys.argv[1], os.O_RDONLY)\n\
                        print(time.time_ns() // 1000000)\n\
                        fcntl.ioctl(folder, 0x8004587d, struct.pack('I', 2))";
        let moment = output("python3", &["-c", shutdown, self.text()]).expect("cut the power");
        moment.trim().parse().expect("a number of milliseconds")
    }

    /// Takes the file system out and puts it back, once nobody uses it any more.
    pub fn replug(&self) {
        run("umount", &[self.text()]).expect("unmount");
        self.plug_in().expect("mount again");
    }
}

impl Drop for Mount {
    /// Also where the test failed, or the mount. A loop device goes with its mount.
    fn drop(&mut self) {
        let point = self.text();
        let gone = run("umount", &[point]).or_else(|_| run("umount", &["--lazy", point]));
        // It was never mounted where this process may not.
        drop(gone);
    }
}
