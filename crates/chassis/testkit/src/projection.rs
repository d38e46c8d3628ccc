//! Given, when, then for a projection.

use std::sync::Arc;

use headwater::database::{self, Migration, Snapshot, WriteError};
use headwater::{ApplyError, Clock, Database, Envelope, Event, Projection};
use tempfile::TempDir;

/// A projection on its own empty store.
///
/// ```
/// use headwater::database::{Migration, Snapshot, Tx};
/// use headwater::{ApplyError, Envelope, Event, Projection};
/// use headwater_testkit::Given;
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
/// let given = Given::nothing(Count, MIGRATIONS).await;
/// let read = Read { sensor: "attic".to_owned() };
/// given.when(&[read.clone(), read]).await.unwrap();
/// assert_eq!(given.then(count).await, 2);
/// # });
/// ```
#[derive(Debug)]
pub struct Given<P> {
    projection: Arc<P>,
    db: Database,
    _folder: TempDir,
}

impl<P: Projection> Given<P> {
    /// A store to which nothing has been applied.
    pub async fn nothing(projection: P, migrations: &'static [Migration]) -> Self {
        let folder = TempDir::new().expect("make a folder");
        let config = database::Config::at(folder.path().join("store.db"));
        let db = Database::open(P::NAME, &config, migrations, Clock::system());
        Self {
            projection: Arc::new(projection),
            db: db.await.expect("open a database"),
            _folder: folder,
        }
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
        match self.db.write(move |tx| projection.apply(tx, &events)).await {
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
        self.db.read(look).await.expect("read the store")
    }

    /// The store.
    pub fn store(&self) -> &Database {
        &self.db
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

/// The interleavings of some histories: all, or at most `limit` of them, spread evenly. Each
/// history keeps its order.
///
/// ```
/// let all = headwater_testkit::interleavings(&[&[1, 2], &[3]], 90);
/// assert_eq!(all, [[1, 2, 3], [1, 3, 2], [3, 1, 2]]);
/// ```
pub fn interleavings<T: Clone>(histories: &[&[T]], limit: usize) -> Vec<Vec<T>> {
    fn extend<T: Clone>(rest: &[&[T]], so_far: &mut Vec<T>, all: &mut Vec<Vec<T>>) {
        if rest.iter().all(|history| history.is_empty()) {
            all.push(so_far.clone());
        }
        for source in 0..rest.len() {
            if let Some((next, later)) = rest[source].split_first() {
                let mut rest = rest.to_vec();
                rest[source] = later;
                so_far.push(next.clone());
                extend(&rest, so_far, all);
                so_far.pop();
            }
        }
    }
    let mut all = Vec::new();
    extend(histories, &mut Vec::new(), &mut all);
    let step = all.len().div_ceil(limit);
    all.into_iter().step_by(step.max(1)).collect()
}
