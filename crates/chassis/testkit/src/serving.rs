//! A whole service in a test.

use broker::Broker;
use headwater::Process;
use headwater::http::About;
use tokio_util::sync::CancellationToken;

use crate::wait::eventually;

/// A service that runs in this process, with a broker, a database and free ports of its own.
#[derive(Debug)]
pub struct Served {
    /// Where it answers, as in `http://127.0.0.1:40123`.
    pub url: String,
    /// Its broker.
    pub broker: Broker,
    name: &'static str,
}

impl Served {
    /// Waits until the service's stream has `count` events.
    ///
    /// # Panics
    /// It does not have them in time.
    pub async fn eventually_published(&self, count: u64) {
        let nats = async_nats::connect(self.broker.url()).await;
        let jetstream = async_nats::jetstream::new(nats.expect("connect to the broker"));
        eventually("the events in the stream", async || {
            let stream = jetstream.get_stream(self.name.to_uppercase()).await;
            let stream = stream.map_err(|error| error.to_string())?;
            match stream.cached_info().state.messages {
                messages if messages == count => Ok(()),
                messages => Err(format!("{messages} events")),
            }
        })
        .await;
    }
}

/// Runs a service during `test`, as its `main` does with `about` and `run`, then stops it.
///
/// # Panics
/// The service does not start, ends before the test does, or does not stop in order.
pub async fn serving<C: clap::Args>(
    about: About,
    run: impl AsyncFnOnce(C, Process) -> headwater::Result,
    test: impl AsyncFnOnce(&Served),
) {
    let folder = tempfile::tempdir().expect("make a folder");
    let database = folder.path().join("service.db").display().to_string();
    let stop = CancellationToken::new();
    let process = Process::on_free_ports(stop.clone()).await.expect("bind");
    let address = process.listeners.public.local_addr().expect("an address");
    let served = Served {
        url: format!("http://{address}"),
        broker: crate::broker(),
        name: about.name,
    };
    let nats = served.broker.url();
    let arguments = ["--nats-url", &*nats, "--database", &database];
    let settings = headwater::settings(&about, &arguments);
    let mut running = Box::pin(run(settings, process));
    tokio::select! {
        ended = &mut running => panic!("the service ended: {ended:?}"),
        () = test(&served) => stop.cancel(),
    }
    running.await.expect("the service stops in order");
}
