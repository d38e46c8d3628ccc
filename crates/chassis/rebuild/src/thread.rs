//! Runs blocking work on threads.

use tokio::sync::oneshot;

/// Runs the blocking `work` on its own thread. The process does not wait for the thread when it
/// ends.
pub(super) fn on_thread<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> impl Future<Output = T> {
    let (sender, receiver) = oneshot::channel();
    let spawned = std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            // Fails only if the caller no longer waits.
            let _ = sender.send(work());
        });
    spawned.expect("start a thread");
    async move { receiver.await.expect("the thread does not panic") }
}
