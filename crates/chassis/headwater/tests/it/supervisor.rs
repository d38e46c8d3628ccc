//! The first task that ends stops all tasks, and the error names it.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::anyhow;
use headwater::telemetry::Error;
use headwater::{Supervisor, causes};
use tokio_util::sync::CancellationToken;

const SOON: Duration = Duration::from_millis(50);
const LATE: Duration = Duration::from_secs(20);

/// A task that ends when it is stopped, and records it.
fn well_behaved(supervisor: &mut Supervisor) -> Arc<AtomicBool> {
    let stopped = Arc::new(AtomicBool::new(false));
    let note = Arc::clone(&stopped);
    supervisor.spawn("well-behaved", |stop| async move {
        stop.cancelled().await;
        note.store(true, Ordering::SeqCst);
        Ok::<_, Infallible>(())
    });
    stopped
}

#[tokio::test]
async fn the_first_task_that_fails_stops_the_others_and_is_named() {
    let mut supervisor = Supervisor::new(CancellationToken::new());
    let stopped = well_behaved(&mut supervisor);
    supervisor.spawn("broken", |_| async {
        Err(anyhow!("no disk").context("write a file"))
    });
    let error = supervisor.join(LATE).await.unwrap_err();
    assert!(matches!(error, Error::TaskFailed { task: "broken", .. }));
    assert_eq!(causes(&error), "run broken: write a file: no disk");
    assert!(stopped.load(Ordering::SeqCst));
}

#[tokio::test]
async fn a_task_that_ends_by_itself_stops_the_others_and_is_named() {
    let mut supervisor = Supervisor::new(CancellationToken::new());
    let stopped = well_behaved(&mut supervisor);
    supervisor.spawn("short", |_| async { Ok::<_, Infallible>(()) });
    let error = supervisor.join(LATE).await.unwrap_err();
    assert!(matches!(error, Error::TaskEnded { task: "short" }));
    assert_eq!(causes(&error), "short ended unexpectedly");
    assert!(stopped.load(Ordering::SeqCst));
}

#[expect(clippy::unused_async, reason = "a task")]
async fn buggy() -> Result<(), Infallible> {
    panic!("an index out of bounds")
}

#[tokio::test]
async fn a_task_that_panics_stops_the_others_and_is_named() {
    let mut supervisor = Supervisor::new(CancellationToken::new());
    let stopped = well_behaved(&mut supervisor);
    supervisor.spawn("buggy", |_| buggy());
    let error = causes(&supervisor.join(LATE).await.unwrap_err());
    assert!(
        error.contains("run buggy") && error.contains("an index out of bounds"),
        "{error}"
    );
    assert!(stopped.load(Ordering::SeqCst));
}

#[tokio::test]
async fn a_stop_ends_all_tasks_without_an_error() {
    let stop = CancellationToken::new();
    let mut supervisor = Supervisor::new(stop.clone());
    let stopped = [well_behaved(&mut supervisor), well_behaved(&mut supervisor)];
    stop.cancel();
    supervisor.join(LATE).await.unwrap();
    assert!(stopped.iter().all(|stopped| stopped.load(Ordering::SeqCst)));
}

#[tokio::test]
async fn a_task_that_does_not_end_is_given_up_on_at_the_deadline_and_named() {
    let stop = CancellationToken::new();
    let mut supervisor = Supervisor::new(stop.clone());
    let stopped = well_behaved(&mut supervisor);
    supervisor.spawn("deaf", |_| std::future::pending::<Result<(), Infallible>>());
    stop.cancel();
    let started = Instant::now();
    let error = supervisor.join(SOON).await.unwrap_err();
    assert!(matches!(&error, Error::StillRunning { tasks, .. } if tasks[..] == ["deaf"]));
    let error = causes(&error);
    assert!(started.elapsed() < Duration::from_secs(3), "{error}");
    assert!(
        error.contains("did not end within 50ms") && error.contains("deaf"),
        "{error}"
    );
    assert!(!error.contains("well-behaved"), "{error}");
    assert!(stopped.load(Ordering::SeqCst));
}

#[tokio::test]
async fn an_error_while_stopping_is_not_lost() {
    let stop = CancellationToken::new();
    let mut supervisor = Supervisor::new(stop.clone());
    well_behaved(&mut supervisor);
    supervisor.spawn("sloppy", |stop| async move {
        stop.cancelled().await;
        Err(anyhow!("half of it was left"))
    });
    stop.cancel();
    let error = supervisor.join(LATE).await.unwrap_err();
    assert!(matches!(error, Error::StopFailed { task: "sloppy", .. }));
    let error = causes(&error);
    assert!(error.contains("sloppy: half of it was left"), "{error}");
}
