//! Work that blocks for long.

use tokio::sync::oneshot;

/// Runs `work`, which blocks, on a thread of its own, which nobody waits for when the process ends.
pub(super) fn on_thread<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> impl Future<Output = T> {
    let (sender, receiver) = oneshot::channel();
    let spawned = std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            // Where nobody waits for it any more, nobody is told.
            let _ = sender.send(work());
        });
    spawned.expect("start a thread");
    async move { receiver.await.expect("the thread does not panic") }
}
