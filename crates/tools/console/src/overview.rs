//! The first page: the state of the system, what is wrong, and the lag of the last hour.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use futures_util::stream;
use headwater::Clock;
use headwater::operator::{BackupState, BackupStatus, RebuildPurpose, RebuildState};
use survey::{Finding, Grade, Projection, status};
use terminal::Table;
use terminal::table::bytes;
use tokio::sync::watch;

use crate::app::{App, Shared};
use crate::chart::Chart;
use crate::live::{Update, live};
use crate::page::{Frame, page};
use crate::params::link;
use crate::sample::{Line, Rebuild, Taken};

#[derive(Template)]
#[template(path = "overview.html")]
struct Overview {
    frame: Frame,
    live: Live,
}

/// The part of the page that follows.
#[derive(Template)]
#[template(path = "overview_live.html")]
struct Live {
    /// When the sample was taken; empty if there is none yet.
    at: String,
    /// Why there is no newer one, and since when.
    failure: Option<(String, String)>,
    troubles: Vec<Trouble>,
    running: Vec<Progress>,
    grids: Vec<Grid>,
    lags: Vec<Lagging>,
    is_operator: bool,
    sources: Vec<String>,
    /// The services whose databases can be backed up.
    databases: Vec<String>,
}

/// A problem, and what to do.
struct Trouble {
    word: &'static str,
    class: &'static str,
    check: &'static str,
    what: String,
    fix: String,
}

/// A rebuild or a backup that runs, or failed.
struct Progress {
    what: String,
    state: String,
    /// How far it is, and of how much, if it runs.
    bar: Option<Bar>,
}

/// How far something is.
struct Bar {
    at: u64,
    of: u64,
    /// `3 of 17 events`.
    amount: String,
}

/// A table of `headwater status`.
struct Grid {
    title: &'static str,
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

/// A projection with one of its sources.
struct Lagging {
    cells: Vec<String>,
    chart: Chart,
    /// What an operator can do with the projection.
    links: Vec<(&'static str, String)>,
    name: String,
}

pub(crate) async fn show(State(app): State<Shared>) -> Response {
    page(&Overview {
        frame: Frame::of(&app, "/"),
        live: Live::of(&app),
    })
}

/// Sends the page again with each sample.
pub(crate) async fn follow(State(app): State<Shared>) -> Response {
    let changes = app.samples.changes();
    let own = Arc::clone(&app);
    let updates = stream::unfold(changes, move |changes| next(Arc::clone(&own), changes));
    live(&app, updates)
}

async fn next(
    app: Shared,
    mut changes: watch::Receiver<u64>,
) -> Option<(Update, watch::Receiver<u64>)> {
    changes.changed().await.ok()?;
    let update = Update {
        name: "page",
        id: String::new(),
        html: Live::of(&app).render().ok()?,
    };
    Some((update, changes))
}

impl Live {
    fn of(app: &App) -> Self {
        let taken = app.samples.newest();
        let failure = app.samples.failure();
        let failure = failure.map(|(at, why)| (Clock::text(at), why));
        let is_operator = app.is_operator;
        let Some(taken) = taken else {
            return Self {
                at: String::new(),
                failure,
                troubles: Vec::new(),
                running: Vec::new(),
                grids: Vec::new(),
                lags: Vec::new(),
                is_operator,
                sources: Vec::new(),
                databases: Vec::new(),
            };
        };
        let survey = &taken.survey;
        Self {
            at: Clock::text(survey.at_ms),
            failure,
            troubles: taken.troubles.iter().map(Trouble::of).collect(),
            running: {
                let rebuilds = taken.rebuilds.iter().filter_map(Progress::of);
                let backups = taken.backups.iter().filter_map(Progress::of_backup);
                rebuilds.chain(backups).collect()
            },
            grids: vec![
                Grid::of("Services", &status::services(survey)),
                Grid::of("Streams", &status::streams(survey)),
                Grid::of("Relays", &status::relays(survey)),
            ],
            lags: lags(app, &taken),
            is_operator,
            sources: survey.topology.sources.iter().cloned().collect(),
            databases: taken.backups.keys().cloned().collect(),
        }
    }
}

impl Trouble {
    fn of(finding: &Finding) -> Self {
        let (word, class) = match finding.grade {
            Grade::Fail => ("failed", "bad"),
            Grade::Unknown => ("unknown", "soft"),
            _ => ("warning", "warn"),
        };
        Self {
            word,
            class,
            check: finding.check,
            what: finding.what.clone(),
            fix: finding.fix.clone().unwrap_or_default(),
        }
    }
}

impl Progress {
    /// `None` if there is none, or the last one is done.
    fn of(rebuild: &Rebuild) -> Option<Self> {
        let status = &rebuild.status;
        let doing = match status.then {
            RebuildPurpose::Rebuild => "rebuild",
            RebuildPurpose::Verify => "verification",
            RebuildPurpose::Replay => "replay of an event",
        };
        let state = match status.state {
            RebuildState::Idle | RebuildState::Done => return None,
            RebuildState::Folding => "applies events",
            RebuildState::Comparing => "compares the rows",
            RebuildState::Merging => "changes the rows that differ",
            RebuildState::Failed if status.then != RebuildPurpose::Rebuild => {
                "ended without a result"
            }
            RebuildState::Failed => "failed; the old rows still serve",
        };
        let mut all = vec![state.to_owned()];
        all.extend(status.message.clone());
        let waiting = status.waiting.iter();
        all.extend(waiting.map(|(source, why)| format!("waits for {source}: {why}")));
        let (name, service) = (&rebuild.projection, &rebuild.service);
        let (at, of) = (&status.positions.0, &status.live.0);
        let (at, of): (u64, u64) = (at.values().sum(), of.values().sum());
        Some(Self {
            what: format!("{doing} of {name} of {service}"),
            state: all.join("; "),
            bar: status.state.is_running().then(|| Bar {
                at,
                of,
                amount: format!("{at} of {of} events"),
            }),
        })
    }

    /// `None` if there is none, or the last one is done.
    fn of_backup((service, status): (&String, &BackupStatus)) -> Option<Self> {
        let state = match status.state {
            BackupState::Idle | BackupState::Done => return None,
            BackupState::Waiting => "waits for another backup",
            BackupState::Copying => "copies the database",
            BackupState::Checking => "checks the copy",
            BackupState::Failed => "failed; there is no copy",
        };
        let mut all = vec![state.to_owned()];
        all.extend(status.message.clone());
        let (at, of) = (status.copied, status.total);
        let is_over = status.state == BackupState::Failed;
        Some(Self {
            what: format!("backup of {service}"),
            state: all.join("; "),
            bar: (!is_over).then(|| Bar {
                at,
                of,
                amount: format!("{} of {}", bytes(at), bytes(of)),
            }),
        })
    }
}

impl Grid {
    fn of<const N: usize>(title: &'static str, table: &Table<N>) -> Self {
        let (head, rows) = table.parts();
        Self {
            title,
            head: head.iter().map(|name| sentence(name)).collect(),
            rows: rows.iter().map(|row| row.to_vec()).collect(),
        }
    }
}

/// `LAST SEEN` as `Last seen`.
fn sentence(name: &str) -> String {
    let mut chars = name.chars();
    let first = chars.next().into_iter();
    first.chain(chars.flat_map(char::to_lowercase)).collect()
}

fn lags(app: &App, taken: &Taken) -> Vec<Lagging> {
    let projections = &taken.survey.projections;
    let table = status::projections(projections);
    let pairs = projections.iter().flat_map(|projection| {
        let sources = projection.sources.keys();
        sources.map(move |source| (projection, source))
    });
    let rows = table.parts().1.iter();
    let row = |(cells, (projection, source)): (&[String; 8], (&Projection, &String))| {
        let line = Line {
            service: projection.service.clone(),
            projection: projection.name.clone(),
            source: source.clone(),
        };
        let what = format!("{} behind {source}", projection.name);
        Lagging {
            cells: cells.to_vec(),
            chart: Chart::of(&what, &app.samples.line(&line)),
            links: links(projection),
            name: projection.name.clone(),
        }
    };
    rows.zip(pairs).map(row).collect()
}

fn links(projection: &Projection) -> Vec<(&'static str, String)> {
    let to = |verb: &str| {
        let (service, name) = (&*projection.service, &*projection.name);
        let params = [("verb", verb), ("service", service), ("projection", name)];
        link("/confirm", &params)
    };
    let mut links = match projection.paused {
        Some(_) => vec![("Resume", to("resume"))],
        None => vec![("Pause", to("pause"))],
    };
    if projection.can_rebuild && projection.paused.is_none() {
        links.push(("Rebuild", to("rebuild")));
    }
    links
}
