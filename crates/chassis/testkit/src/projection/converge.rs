//! Checks that a projection ends in the same tables whatever happens on the way.

use std::convert::Infallible;
use std::fmt::Debug;
use std::sync::Arc;

use fastrand::Rng;
use headwater::database::{Migration, Tx, WriteError};
use headwater::projection::{as_of, compared};
use headwater::{ApplyError, Clock, Envelope, Projection};
use sea_orm::{ConnectionTrait as _, DbErr, Statement};

use crate::projection::course::{self, Order, Step};
use crate::projection::report::{self, Tables};
use crate::projection::run::{Parts, Run};
use crate::projection::store::Store;

/// Up to this number of interleavings, all are tried; beyond it, random ones.
const EXHAUSTIVE_MAX: usize = 300;
/// About how many events random interleavings, and courses with one fault, apply in total.
const EVENTS_MAX: usize = 3_000;
/// At least this number of courses have random batches and faults.
const ROUGH_MIN: usize = 10;
/// At how many events the store is reopened.
const REOPENED_MAX: usize = 12;
/// A seed from an earlier failure.
const SEED: &str = "HEADWATER_SEED";

/// Events, and a projection that must end in the same tables in whichever order and however often
/// they come. Made by [`converges`].
#[must_use = "nothing is checked before `check` or `then`"]
pub struct Converges<P> {
    parts: Parts<P>,
    migrations: &'static [Migration],
    seed: Option<u64>,
}

/// Checks that a projection ends in the same tables, dead letters and positions for
///
/// * other interleavings of the sources, with the events of each source in the given order;
/// * larger batches;
/// * events that are in the stream twice, and streams that are read again from some event on;
/// * transactions that are rolled back, and processes that start again.
///
/// Not everything is tried:
///
/// * all interleavings if there are at most 300, as of 2 × 2 × 2 events; else random ones, and each
///   source wholly ahead of the others and wholly behind them;
/// * each fault at each place of one interleaving, without batches: all of them for up to about 13
///   events, else random ones;
/// * random batches with random faults, at least once for each interleaving that is tried.
///
/// Each course runs through the code of a running projection, with its checkpoint, on a store in a
/// temporary folder; there is no broker. In place of the broker, the kit decides what a stream
/// holds. All courses but one share a transaction, in which each is rolled back. One commits, and
/// closes and reopens the store before and after the commits of up to 12 events. No process is
/// killed.
///
/// `projection` makes the value that a starting process would make. Compared are the projection's
/// `CONTENT`; without it, its `TABLES`; without both, all tables of the store.
///
/// ```no_run
/// # use headwater::Projection;
/// # use headwater::database::Migration;
/// # async fn test<P: Projection>(
/// #     projection: impl Fn() -> P + Send + Sync + 'static,
/// #     migrations: &'static [Migration],
/// #     events: Vec<headwater::Envelope>,
/// # ) {
/// use headwater_testkit::converges;
///
/// converges(projection, migrations, events).check().await;
/// # }
/// ```
///
/// # Panics
/// The projection does not follow the source of an event.
pub fn converges<P: Projection>(
    projection: impl Fn() -> P + Send + Sync + 'static,
    migrations: &'static [Migration],
    events: impl IntoIterator<Item = Envelope>,
) -> Converges<P> {
    let mut sources: Vec<_> = P::SOURCES.iter().map(|it| (*it, Vec::new())).collect();
    for event in events {
        let of = sources.iter_mut().find(|(it, _)| **it == *event.source);
        let (_, events) =
            of.unwrap_or_else(|| panic!("{} does not follow {}", P::NAME, event.source));
        events.push(event);
    }
    Converges {
        parts: Parts {
            projection: Arc::new(projection),
            sources,
            settle: None,
        },
        migrations,
        seed: None,
    }
}

impl<P: Projection> Converges<P> {
    /// Work that the service does in the background: it runs now and then, and before tables are
    /// compared.
    pub fn settled_by(
        self,
        settle: impl Fn(&Tx) -> Result<(), DbErr> + Send + Sync + 'static,
    ) -> Self {
        let settle = Some(Arc::new(settle) as _);
        Self {
            parts: Parts {
                settle,
                ..self.parts
            },
            ..self
        }
    }

    /// The seed of what is random; without it, that of the environment variable `HEADWATER_SEED`,
    /// or a new one for each check. A failure reports it.
    pub fn seed(self, seed: u64) -> Self {
        Self {
            seed: Some(seed),
            ..self
        }
    }

    /// Runs the check.
    ///
    /// # Panics
    /// The projection does not converge. The message has two courses and the rows that differ.
    pub async fn check(self) {
        self.then(|_| Ok(())).await;
    }

    /// Runs the check; what `read` returns must also be the same in the end. Returns it.
    ///
    /// # Panics
    /// As [`check`](Self::check).
    pub async fn then<T: PartialEq + Debug + Send + 'static>(
        self,
        read: impl Fn(&Tx) -> Result<T, DbErr> + Send + Sync + 'static,
    ) -> T {
        let ended = self.run(read).await;
        ended.unwrap_or_else(|report| panic!("{report}\n"))
    }

    /// Runs the check. Returns the report if the projection does not converge.
    pub async fn report(self) -> Option<String> {
        self.run(|_| Ok(())).await.err()
    }

    async fn run<T: PartialEq + Debug + Send + 'static>(
        self,
        read: impl Fn(&Tx) -> Result<T, DbErr> + Send + Sync + 'static,
    ) -> Result<T, String> {
        let seed = self.seed.or_else(given_seed);
        let seed = seed.unwrap_or_else(|| fastrand::u64(..));
        let check = Arc::new(Check {
            converges: self,
            read,
            seed,
        });
        let mut store = Store::open(P::NAME, check.converges.migrations, Clock::system()).await;
        let checked = Arc::clone(&check);
        let outcome = match store.db.write(move |tx| checked.in_one(tx)).await {
            Err(WriteError::Refused(End::Reached(outcome))) => *outcome,
            Err(WriteError::Refused(End::Failed(report))) => return Err(report),
            Err(WriteError::Panicked) => {
                panic!(
                    "{}: `then` or `settled_by` panicked, as printed above",
                    P::NAME
                )
            }
            Err(error) => panic!("{}: cannot write: {}", P::NAME, error.kind()),
            Ok(never) => match never.value {},
        };
        check.with_reopening(&mut store, &outcome).await?;
        Ok(outcome.value)
    }
}

impl<P> std::fmt::Debug for Converges<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Converges")
            .field("sources", &self.parts.sources)
            .finish_non_exhaustive()
    }
}

fn given_seed() -> Option<u64> {
    let seed = std::env::var(SEED).ok()?;
    Some(seed.parse().expect("HEADWATER_SEED is a number"))
}

/// Where a course ended.
#[derive(Debug, PartialEq)]
struct Outcome<T> {
    tables: Tables,
    value: T,
}

/// Why a transaction is rolled back.
enum End<T> {
    /// The course reached its end.
    Reached(Box<Outcome<T>>),
    /// An event cannot be applied; or the report of the whole check.
    Failed(String),
}

impl<T> From<DbErr> for End<T> {
    fn from(error: DbErr) -> Self {
        Self::Failed(error.to_string())
    }
}

impl<T> From<ApplyError> for End<T> {
    fn from(error: ApplyError) -> Self {
        match error {
            ApplyError::Transient(error) => error.into(),
            ApplyError::Poison(reason) => Self::Failed(reason),
        }
    }
}

struct Check<P, R> {
    converges: Converges<P>,
    read: R,
    seed: u64,
}

impl<P, R, T> Check<P, R>
where
    P: Projection,
    R: Fn(&Tx) -> Result<T, DbErr> + Send + Sync + 'static,
    T: PartialEq + Debug + Send + 'static,
{
    /// Runs all courses in one transaction.
    fn in_one(&self, tx: &Tx) -> Result<Infallible, End<T>> {
        let mut random = Rng::with_seed(self.seed);
        let lengths: Vec<_> = self.sources().map(|(_, events)| events.len()).collect();
        let first = course::in_turn(&lengths);
        let wanted = self.outcome(tx, &course::plain(&first));
        let wanted = wanted.map_err(|why| format!("{} without any fault: {why}", P::NAME));
        let wanted = wanted.map_err(End::Failed)?;
        if let Some(letters) = wanted.tables.get(report::DEAD_LETTERS) {
            let letters = letters.join("\n    ");
            return Err(End::Failed(format!(
                "the events cannot be applied:\n    {letters}"
            )));
        }
        let courses_max = (EVENTS_MAX / first.len().max(1)).max(10);
        let all = course::all(&lengths, EXHAUSTIVE_MAX);
        let orders = all.unwrap_or_else(|| {
            let random = || course::random(&lengths, &mut random);
            let random = std::iter::repeat_with(random).take(courses_max);
            course::one_apart(&lengths).chain(random).collect()
        });
        for order in &orders {
            if self.differs(tx, &course::plain(order), &wanted) {
                return Err(End::Failed(self.order_matters(tx, &first, order, &wanted)));
            }
        }
        let faults = course::with_one_fault(&first, courses_max, &mut random);
        let mut cuts = random.choose_multiple(1..first.len(), courses_max);
        cuts.insert(0, 0);
        let batches = cuts.into_iter().map(|cut| course::cut_at(&first, cut));
        let rough = orders.iter().cycle().take(orders.len().max(ROUGH_MIN));
        let rough = rough.map(|order| course::rough(order, &mut random));
        for course in faults.into_iter().chain(batches).chain(rough) {
            if self.differs(tx, &course, &wanted) {
                return Err(End::Failed(self.fault_matters(tx, course, &wanted)));
            }
        }
        Err(End::Reached(Box::new(wanted)))
    }

    /// Runs a course that commits, and reopens the store wherever the process starts again.
    async fn with_reopening(
        self: &Arc<Self>,
        store: &mut Store,
        wanted: &Outcome<T>,
    ) -> Result<(), String> {
        let lengths: Vec<_> = self.sources().map(|(_, events)| events.len()).collect();
        let order = course::in_turn(&lengths);
        let course = course::with_restarts(&order, REOPENED_MAX);
        let check = Arc::clone(self);
        let begun = store
            .db
            .write(move |tx| Run::begin(tx, &check.converges.parts))
            .await;
        let mut run = begun
            .unwrap_or_else(|error| panic!("{}", error.kind()))
            .value;
        for step in course.clone() {
            if step == Step::Restart {
                store.reopen().await;
            }
            let (check, mut now) = (Arc::clone(self), run);
            let written = store.db.write(move |tx| {
                now.step(tx, &check.converges.parts, &step)?;
                Ok::<_, End<T>>(now)
            });
            run = match written.await {
                Ok(written) => written.value,
                Err(WriteError::Refused(End::Failed(why))) => {
                    let left = course::plain(&order);
                    return Err(self.report(&left, Ok(wanted), &course, Err(&why)));
                }
                Err(error) => return Err(format!("{}: cannot write: {}", P::NAME, error.kind())),
            };
        }
        let check = Arc::clone(self);
        let ended = store.db.write(move |tx| check.read(tx)).await;
        let ended = ended
            .unwrap_or_else(|error| panic!("{}", error.kind()))
            .value;
        if ended == *wanted {
            return Ok(());
        }
        let [left, right] = [course::plain(&order), course];
        Err(self.report(&left, Ok(wanted), &right, Ok(&ended)))
    }

    fn sources(&self) -> impl Iterator<Item = &(&'static str, Vec<Envelope>)> {
        self.converges.parts.sources.iter()
    }

    /// Runs `course` in a savepoint, which is rolled back.
    fn outcome(&self, tx: &Tx, course: &[Step]) -> Result<Outcome<T>, String> {
        let run = |tx: &Tx| -> Result<Infallible, End<T>> {
            let mut run = Run::begin(tx, &self.converges.parts)?;
            for step in course {
                run.step(tx, &self.converges.parts, step)?;
            }
            let read = self.read(tx);
            let read = read.map_err(|error| format!("what is compared cannot be read: {error}"));
            Err(End::Reached(Box::new(read.map_err(End::Failed)?)))
        };
        match tx.savepoint(run) {
            Err(End::Reached(outcome)) => Ok(*outcome),
            Err(End::Failed(why)) => Err(why),
            Ok(never) => match never {},
        }
    }

    fn differs(&self, tx: &Tx, course: &[Step], wanted: &Outcome<T>) -> bool {
        self.outcome(tx, course).as_ref() != Ok(wanted)
    }

    /// Reports two interleavings that differ by two neighbours.
    fn order_matters(&self, tx: &Tx, from: &Order, to: &Order, wanted: &Outcome<T>) -> String {
        let at = |swaps| course::plain(&course::towards(from, to, swaps));
        // On the way, `same` swaps end as wanted, and `other` swaps do not.
        let (mut same, mut other) = (0, from.len().pow(2));
        while other - same > 1 {
            let middle = same.midpoint(other);
            if self.differs(tx, &at(middle), wanted) {
                other = middle;
            } else {
                same = middle;
            }
        }
        let [left, right] = [same, other].map(at);
        let ends = [self.outcome(tx, &left), self.outcome(tx, &right)];
        let [one, other] = ends.each_ref().map(Result::as_ref);
        self.report(&left, one, &right, other)
    }

    /// Reports the simplest course that still differs, next to the same events without faults.
    fn fault_matters(&self, tx: &Tx, mut course: Vec<Step>, wanted: &Outcome<T>) -> String {
        while let Some(simpler) =
            course::simpler(course.clone()).find(|simpler| self.differs(tx, simpler, wanted))
        {
            course = simpler;
        }
        let order = course.iter().flat_map(|step| match step {
            Step::Apply { source, events } => vec![*source; *events],
            _ => Vec::new(),
        });
        let left = course::plain(&order.collect());
        let ends = [self.outcome(tx, &left), self.outcome(tx, &course)];
        let [one, other] = ends.each_ref().map(Result::as_ref);
        self.report(&left, one, &course, other)
    }

    fn report(
        &self,
        left: &[Step],
        one: Result<&Outcome<T>, &String>,
        right: &[Step],
        other: Result<&Outcome<T>, &String>,
    ) -> String {
        let tables = |end: Result<&Outcome<T>, &String>| match end {
            Ok(Outcome { tables, value }) => {
                let mut tables = tables.clone();
                tables.insert("what `then` reads".to_owned(), vec![format!("{value:?}")]);
                tables
            }
            Err(why) => Tables::from([("error".to_owned(), vec![why.clone()])]),
        };
        let ends = [tables(one), tables(other)];
        let courses =
            [left, right].map(|course| report::lines(&self.converges.parts.sources, course));
        let seed = self.seed;
        format!(
            "the projection {} does not converge\n{}\n{}\nTo repeat it: {SEED}={seed}",
            P::NAME,
            report::side_by_side(&courses),
            report::differences(&ends),
        )
    }

    /// What is compared.
    fn read(&self, tx: &Tx) -> Result<Outcome<T>, DbErr> {
        if let Some(settle) = &self.converges.parts.settle {
            settle(tx)?;
        }
        let mut tables = Tables::new();
        let content = compared(P::CONTENT, P::TABLES, |sql| names(tx, sql))?;
        for (name, sql) in content {
            tables.insert(name, rows(tx, &sql)?);
        }
        let letters = format!(
            "SELECT source, position, reason FROM headwater_dead_letter
             WHERE projection = '{}'",
            P::NAME
        );
        let letters = rows(tx, &letters)?;
        if !letters.is_empty() {
            tables.insert(report::DEAD_LETTERS.to_owned(), letters);
        }
        let positions = as_of::<P>(tx)?.applied.to_string();
        tables.insert("positions".to_owned(), vec![positions]);
        let value = (self.read)(tx)?;
        Ok(Outcome { tables, value })
    }
}

/// The first column of a query.
fn names(tx: &Tx, sql: &str) -> Result<Vec<String>, DbErr> {
    let rows = tx.query_all_raw(Statement::from_string(tx.get_database_backend(), sql))?;
    rows.iter().map(|row| row.try_get_by(0)).collect()
}

/// The rows of a query as text, sorted.
fn rows(tx: &Tx, sql: &str) -> Result<Vec<String>, DbErr> {
    let query =
        |sql: String| tx.query_all_raw(Statement::from_string(tx.get_database_backend(), sql));
    let first = query(format!("SELECT * FROM ({sql}) LIMIT 1"))?;
    let Some(first) = first.first() else {
        return Ok(Vec::new());
    };
    let column = |name: &String| format!("'{name}=' || quote(\"{name}\")");
    let columns: Vec<_> = first.column_names().iter().map(column).collect();
    let columns = columns.join(" || ' ' || ");
    let rows = query(format!("SELECT {columns} FROM ({sql}) ORDER BY 1"))?;
    rows.iter().map(|row| row.try_get_by(0)).collect()
}
