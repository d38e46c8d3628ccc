//! Helpers of fault tests: the dose, states and logs of services, and tools that need root.

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

/// `count`, multiplied by `HEADWATER_DOSE`: 1 in CI, more for long runs.
pub fn dose(count: usize) -> usize {
    let times = std::env::var("HEADWATER_DOSE").unwrap_or_else(|_| "1".to_owned());
    count * times.parse::<usize>().expect("HEADWATER_DOSE is a number")
}

/// The value of a metric of a service; 0 if the metric is missing.
pub async fn metric(client: &Client, name: &str) -> f64 {
    let text = client.get("/metrics").await.text;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.map_or(0.0, |value| value.trim().parse().expect("a number"))
}

/// The log lines of a service at `level` that contain `words`.
pub fn logged(world: &World, service: Service, level: &str, words: &str) -> Vec<Value> {
    lines(&world.log(service))
        .filter(|line| line["level"] == level)
        .filter(|line| line.to_string().contains(words))
        .collect()
}

/// Waits until the component `part` of a service is in the state `state` with `words` in its
/// detail; returns the detail.
pub async fn says(client: &Client, part: &str, state: &str, words: &str) -> String {
    eventually(&format!("{part} to be {state}: {words}"), || async {
        let parts = client.get("/readyz?verbose").await.json;
        let detail = parts[part]["detail"].as_str().unwrap_or_default();
        if parts[part]["state"] == state && detail.contains(words) {
            Ok(detail.to_owned())
        } else {
            Err(parts.to_string())
        }
    })
    .await
}

/// Whether a test that needs `what` can run. If it cannot, reports that, or fails with
/// `HEADWATER_REQUIRE_ROOT=1`, as in CI.
fn can(what: &str, found: Result<(), String>) -> bool {
    can_or_must("HEADWATER_REQUIRE_ROOT", what, found)
}

/// Like [`can`]; fails if `variable` is 1.
pub(crate) fn can_or_must(variable: &str, what: &str, found: Result<(), String>) -> bool {
    let Err(why) = found else { return true };
    let must = std::env::var(variable).is_ok_and(|value| value == "1");
    assert!(!must, "this test needs {what}: {why}");
    tell(&format!("DID NOT RUN: it needs {what}: {why}"));
    false
}

/// Reports something about the running test, even when test output is captured.
pub fn tell(what: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    // A closed stderr must not fail the test.
    let _ = writeln!(std::io::stderr(), "{test}: {what}");
}

/// Runs a program to its end; returns its error output if it fails or is missing.
fn run(program: &str, args: &[&str]) -> Result<(), String> {
    output(program, args).map(drop)
}

/// Like [`run`]; returns its output.
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

/// Whether strace exists and may trace.
pub fn can_trace() -> bool {
    let done = run("strace", &["-o", "/dev/null", "true"]);
    can("strace, and to trace processes", done)
}

/// Whether processes can be started in new namespaces.
pub fn can_make_namespaces() -> bool {
    let done = run("unshare", &["--pid", "--fork", "true"]);
    can("root, and namespaces", done)
}

/// Puts `command` under strace, which makes the `nth` fsync of each thread fail.
pub fn fail_fsync(command: &mut Command, nth: usize) {
    inject(command, &format!("error=EIO:when={nth}"));
}

/// Puts `command` under strace, which makes each fsync take `longer`.
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

/// The test's own file system, which can be filled, enlarged or lose its power. Make it before the
/// world that lives on it, so that it is dropped after that world.
#[derive(Debug)]
pub struct Mount {
    /// The mount point.
    point: TempDir,
    /// The folder of the loop image, if there is one.
    image: Option<TempDir>,
}

impl Mount {
    /// A tmpfs of a size as `mount` takes it; `None` if this process may not mount.
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

    /// Fills the file system to the last byte.
    pub fn fill(&self) {
        let filler = format!("of={}/filler", self.text());
        run("dd", &["if=/dev/zero", &filler, "bs=4k"]).expect_err("fill the disk");
    }

    /// Changes the size of a tmpfs.
    pub fn resize(&self, size: &str) {
        let size = format!("remount,size={size}");
        run("mount", &["-o", &size, self.text()]).expect("enlarge the tmpfs");
    }

    /// Shuts the file system down under its users, without a flush: as in a power cut, everything
    /// that was not fsynced is lost. Returns the moment just before, in milliseconds since 1970.
    /// The programs continue for a while, and their answers after that moment do not count. (An
    /// fsync in progress may then succeed for the kernel although its transaction is lost.)
    pub fn cut(&self) -> i64 {
        let shutdown = "import fcntl, os, struct, sys, time\n\
                        folder = os.open(sys.argv[1], os.O_RDONLY)\n\
                        print(time.time_ns() // 1000000)\n\
                        fcntl.ioctl(folder, 0x8004587d, struct.pack('I', 2))";
        let moment = output("python3", &["-c", shutdown, self.text()]).expect("cut the power");
        moment.trim().parse().expect("a number of milliseconds")
    }

    /// Unmounts the file system, which must be unused, and mounts it again.
    pub fn replug(&self) {
        run("umount", &[self.text()]).expect("unmount");
        self.plug_in().expect("mount again");
    }
}

impl Drop for Mount {
    /// Unmounts also after a failed test or a failed mount. The loop device is released with its
    /// mount.
    fn drop(&mut self) {
        let point = self.text();
        let gone = run("umount", &[point]).or_else(|_| run("umount", &["--lazy", point]));
        // Fails if the mount did.
        drop(gone);
    }
}
