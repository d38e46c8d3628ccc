//! Given, when, then for a projection.

use std::sync::Arc;

use headwater::database::{Migration, Snapshot, WriteError};
use headwater::{ApplyError, Clock, Database, Envelope, Event, Projection};

use crate::projection::store::Store;

/// A projection on its own empty store.
///
/// It calls `apply` directly, without a checkpoint: an event that is given twice is applied twice.
/// [`converges`](crate::converges()) has the checkpoint.
///
/// ```
/// use headwater::database::{Migration, Snapshot, Tx};
/// use headwater::{ApplyError, Envelope, Event, Projection};
/// use headwater_testkit::{Given, events};
/// use sea_orm::{ConnectionTrait as _, DbBackend, DbErr, Statement};
///
/// #[derive(Clone, PartialEq, prost::Message)]
/// struct Read { #[prost(string, tag = "1")] sensor: String }
///
/// impl Event for Read {
///     const SUBJECT: &'static str = "sensors.v1.read";
///     fn key(&self) -> &str { &self.sensor }
/// }
///
/// struct Count;
///
/// impl Projection for Count {
///     const NAME: &'static str = "count";
///     const VERSION: u32 = 1;
///     const SOURCES: &'static [&'static str] = &["sensors"];
///
///     fn apply(&self, tx: &Tx, events: &[Envelope]) -> Result<(), ApplyError> {
///         for event in events {
///             let Read { sensor } = event.decode()?;
///             let sql = "INSERT INTO reading (sensor) VALUES (?)";
///             tx.execute_raw(Statement::from_sql_and_values(DbBackend::Sqlite, sql, [sensor.into()]))?;
///         }
///         Ok(())
///     }
/// }
///
/// const MIGRATIONS: &[Migration] =
///     &[Migration::sql("0001_reading", "CREATE TABLE reading (sensor TEXT NOT NULL)")];
///
/// fn count(snapshot: &Snapshot) -> Result<i64, DbErr> {
///     let sql = "SELECT count(*) AS n FROM reading";
///     let row = snapshot.query_one_raw(Statement::from_string(DbBackend::Sqlite, sql))?;
///     row.expect("a count").try_get_by("n")
/// }
///
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// let read = Read { sensor: "attic".to_owned() };
/// let given = Given::events(Count, MIGRATIONS, events![read, read]).await;
/// assert_eq!(given.then(count).await, 2);
/// # });
/// ```
#[derive(Debug)]
pub struct Given<P> {
    projection: Arc<P>,
    store: Store,
}

impl<P: Projection> Given<P> {
    /// A store to which nothing has been applied.
    pub async fn nothing(projection: P, migrations: &'static [Migration]) -> Self {
        Self {
            projection: Arc::new(projection),
            store: Store::open(P::NAME, migrations, Clock::system()).await,
        }
    }

    /// A store to which `events` have been applied, in this order, each as its own batch.
    ///
    /// # Panics
    /// An event cannot be applied.
    pub async fn events(
        projection: P,
        migrations: &'static [Migration],
        events: impl IntoIterator<Item = Envelope>,
    ) -> Self {
        let given = Self::nothing(projection, migrations).await;
        for event in events {
            let kind = event.kind().to_owned();
            let applied = given.when_these(vec![event]).await;
            applied.unwrap_or_else(|error| panic!("apply {kind}: {error}"));
        }
        given
    }

    /// Applies events of one source as one batch.
    ///
    /// # Errors
    /// The projection's. Nothing of the batch is applied then.
    pub async fn when<E: Event>(&self, events: &[E]) -> Result<(), ApplyError> {
        self.when_these(events.iter().map(envelope).collect()).await
    }

    /// [`when`](Self::when) for events of several kinds.
    ///
    /// # Errors
    /// The projection's. Nothing of the batch is applied then.
    pub async fn when_these(&self, events: Vec<Envelope>) -> Result<(), ApplyError> {
        let projection = Arc::clone(&self.projection);
        match self
            .store
            .db
            .write(move |tx| projection.apply(tx, &events))
            .await
        {
            Ok(_) => Ok(()),
            Err(WriteError::Refused(error)) => Err(error),
            Err(error) => panic!("{error}"),
        }
    }

    /// Reads the store.
    pub async fn then<T, E>(
        &self,
        look: impl FnOnce(&Snapshot) -> Result<T, E> + Send + 'static,
    ) -> T
    where
        T: Send + 'static,
        E: From<sea_orm::DbErr> + std::fmt::Debug + Send + 'static,
    {
        self.store.db.read(look).await.expect("read the store")
    }

    /// The store.
    pub fn store(&self) -> &Database {
        &self.store.db
    }
}

/// The envelope of an event, as a projection gets it, from the source that the subject names.
pub fn envelope<E: Event>(event: &E) -> Envelope {
    let source = E::SUBJECT.split('.').next();
    Envelope {
        source: source.expect("a first token").into(),
        subject: headwater::subject_of(event).into(),
        id: None,
        sequence: None,
        payload: event.encode_to_vec().into(),
        traceparent: None,
    }
}

/// The envelopes of events of any kinds, as projections get them.
///
/// `events![created, placed]` is `vec![envelope(&created), envelope(&placed)]`.
#[macro_export]
macro_rules! events {
    ($($event:expr),* $(,)?) => { vec![$($crate::envelope(&$event)),*] };
}
