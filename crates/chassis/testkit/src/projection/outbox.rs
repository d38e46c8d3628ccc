//! Which events a command appends to the outbox.

use headwater::database::{Tx, WriteError};
use headwater::{Database, Envelope, outbox};

/// Runs `command` in a transaction. Returns its result, and the events that it appended, in the
/// form of [`envelope`](crate::envelope()): compare them with [`events!`](crate::events). What
/// other writers append meanwhile is included.
///
/// ```
/// use headwater::database::Tx;
/// use headwater::{Event, outbox};
/// use headwater_testkit::{Store, TestClock, events, recorded};
/// use sea_orm::DbErr;
///
/// #[derive(Clone, PartialEq, prost::Message)]
/// struct Read { #[prost(string, tag = "1")] sensor: String }
///
/// impl Event for Read {
///     const SUBJECT: &'static str = "sensors.v1.read";
///     fn key(&self) -> &str { &self.sensor }
/// }
///
/// fn read(tx: &Tx, sensor: &str) -> Result<(), DbErr> {
///     outbox::append(tx, &Read { sensor: sensor.to_owned() }).map(drop)
/// }
///
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// let store = Store::open("sensors", &[], TestClock::at("2026-11-22T11:00:00Z").clock()).await;
/// let (result, appended) = recorded(&store.db, |tx| read(tx, "attic")).await;
/// result.unwrap();
/// assert_eq!(appended, events![Read { sensor: "attic".to_owned() }]);
/// # });
/// ```
///
/// # Panics
/// The database fails.
pub async fn recorded<T, E>(
    db: &Database,
    command: impl FnOnce(&Tx) -> Result<T, E> + Send + 'static,
) -> (Result<T, E>, Vec<Envelope>)
where
    T: Send + 'static,
    E: Send + 'static,
{
    let before = db.read(outbox::head).await;
    let before = before.expect("read the outbox");
    let result = match db.write(command).await {
        Ok(written) => Ok(written.value),
        Err(WriteError::Refused(error)) => Err(error),
        Err(error) => panic!("{}", error.kind()),
    };
    let page = db.read(move |snapshot| outbox::page(snapshot, before + 1, usize::MAX));
    let rows = page.await.expect("read the outbox");
    let source = db.owner();
    let appended = rows.into_iter().map(|row| Envelope {
        source: source.into(),
        subject: row.subject.into(),
        id: None,
        sequence: None,
        payload: row.payload.into(),
        traceparent: None,
    });
    (result, appended.collect())
}
