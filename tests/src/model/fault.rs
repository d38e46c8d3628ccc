//! The faults and their times, drawn from the seed before anything runs.

use std::fmt;

use headwater::crash;

use super::command::index;
use crate::data::Random;
use crate::world::Service;

/// The number of faults in a round.
const FAULTS: usize = 6;

/// A crash point is armed for one of its first passes.
const PASS_MAX: u64 = 5;

/// One step of a fault. A step that makes no sense, such as killing a stopped service, is skipped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Kill(Service),
    Start(Service),
    /// Starts a service that dies at a crash point on its `pass`th pass.
    StartArmed(Service, &'static str, u64),
    Pause(Service),
    Resume(Service),
    KillBroker,
    StartBroker,
    PauseBroker,
    ResumeBroker,
    CopyStore,
    PutBackStore,
    LoseStore,
    LoseStream(Service),
    /// Deletes the durable consumers of JetStream.
    LoseConsumers(Service),
    /// Publishes the last events of a stream again.
    PublishAgain(Service, u64),
    /// Deletes one of the last events of a stream.
    DeleteEvent(Service, u64),
    StartRival,
    StopRival,
    LoseReadStore,
    Rebuild,
    /// Continues after this many more answers, or if there are none for a while.
    Work(u64),
}

/// A fault: its name and its steps.
#[derive(Debug, Clone)]
struct Fault {
    name: &'static str,
    steps: Vec<Step>,
}

/// All kinds of faults, dealt like cards: each kind comes once before any comes again.
#[derive(Debug)]
pub(super) struct Deck {
    random: Random,
    left: Vec<Kind>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Kill(Service),
    Pause,
    KillBroker,
    PauseBroker,
    OldStore,
    LoseStore,
    LoseStream,
    LoseConsumers,
    PublishAgain,
    DeleteEvent,
    Rival,
    LoseReadStore,
    LostAnswer,
    CrashSource,
    CrashOrders,
    CrashPurchases,
    Rebuild,
    KillRebuild,
    CrashRebuild,
}

/// The faults of a round.
#[derive(Debug, Clone, Default)]
pub(super) struct Schedule {
    pub(super) names: Vec<&'static str>,
    pub(super) steps: Vec<Step>,
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.names.join(", "))
    }
}

impl Deck {
    pub(super) fn new(seed: u64) -> Self {
        // Random numbers other than those of the clients.
        Self {
            random: Random(!seed),
            left: Vec::new(),
        }
    }

    /// The faults of the next round; the steps of two consecutive faults are mixed.
    pub(super) fn deal(&mut self) -> Schedule {
        let mut schedule = Schedule::default();
        let mut under_way: Vec<Step> = Vec::new();
        for _ in 0..FAULTS {
            let kind = self.draw();
            let Fault { name, steps } = self.fault(kind);
            schedule.names.push(name);
            let mut next = steps.into_iter().rev().collect::<Vec<_>>();
            while let Some(step) = under_way.pop() {
                schedule.steps.push(step);
                if next.len() > 1 && self.random.below(2) == 0 {
                    schedule.steps.extend(next.pop());
                }
            }
            under_way = next;
        }
        schedule.steps.extend(under_way.into_iter().rev());
        schedule
    }

    fn draw(&mut self) -> Kind {
        if self.left.is_empty() {
            self.left = Kind::ALL.to_vec();
        }
        let chosen = self.random.below(self.left.len() as u64);
        self.left.swap_remove(index(chosen))
    }

    fn fault(&mut self, kind: Kind) -> Fault {
        use Step::{
            CopyStore, DeleteEvent, Kill, KillBroker, LoseConsumers, LoseReadStore, LoseStore,
            LoseStream, Pause, PauseBroker, PublishAgain, PutBackStore, Rebuild, Resume,
            ResumeBroker, Start, StartBroker, StartRival, StopRival,
        };
        let purchases = Service::Purchases;
        let (name, steps) = match kind {
            Kind::Kill(service) => {
                let name = match service {
                    Service::Users => "kill users",
                    Service::Products => "kill products",
                    Service::Orders => "kill orders",
                    Service::Purchases => "kill purchases",
                    Service::Composition => "kill composition",
                    Service::RequestReply => "kill request-reply",
                };
                (name, vec![Kill(service), self.work(20), Start(service)])
            }
            Kind::Pause => {
                let service = Service::ALL[index(self.random.below(4))];
                let steps = vec![Pause(service), self.work(15), Resume(service)];
                ("pause a service", steps)
            }
            Kind::KillBroker => {
                let steps = vec![KillBroker, self.work(30), StartBroker, self.work(10)];
                ("kill the broker", steps)
            }
            Kind::PauseBroker => {
                let steps = vec![PauseBroker, self.work(15), ResumeBroker, self.work(10)];
                ("pause the broker", steps)
            }
            Kind::OldStore => {
                let steps = vec![CopyStore, self.work(30), PutBackStore, self.work(10)];
                ("put an old store back", steps)
            }
            Kind::LoseStore => ("lose the store", vec![LoseStore, self.work(15)]),
            Kind::LoseStream => {
                let steps = vec![LoseStream(self.source()), self.work(15)];
                ("lose a stream", steps)
            }
            Kind::LoseConsumers => {
                let steps = vec![LoseConsumers(self.source()), self.work(15)];
                ("lose the consumers", steps)
            }
            Kind::PublishAgain => {
                let count = 1 + self.random.below(40);
                let steps = vec![PublishAgain(self.source(), count), self.work(15)];
                ("publish again", steps)
            }
            Kind::DeleteEvent => {
                // Most events are orders, so one of them is likely to be new.
                let source = match self.random.below(4) {
                    0 => Service::Users,
                    1 => Service::Products,
                    _ => Service::Orders,
                };
                let delete = DeleteEvent(source, self.random.below(3));
                let before = self.work(25);
                let steps = vec![Kill(purchases), before, delete, Start(purchases)];
                ("delete an event", steps)
            }
            Kind::Rival => {
                let steps = vec![StartRival, self.work(40), StopRival];
                ("a rival relay", steps)
            }
            Kind::LoseReadStore => {
                let lost = vec![Kill(purchases), LoseReadStore, self.work(15)];
                let steps = lost.into_iter().chain([Start(purchases)]).collect();
                ("lose the read store", steps)
            }
            Kind::LostAnswer => {
                let service = self.source();
                ("lose an answer", self.crash(service, &["commit.after"]))
            }
            Kind::CrashSource => {
                let service = self.source();
                (
                    "crash a source",
                    self.crash(service, &["commit.", "relay."]),
                )
            }
            Kind::CrashOrders => {
                let points = ["commit.", "relay.", "projection."];
                ("crash orders", self.crash(Service::Orders, &points))
            }
            Kind::CrashPurchases => {
                let points = ["commit.", "projection."];
                ("crash purchases", self.crash(purchases, &points))
            }
            Kind::Rebuild => ("rebuild", vec![Rebuild, self.work(25)]),
            Kind::KillRebuild => {
                let steps = vec![Rebuild, Kill(purchases), self.work(10), Start(purchases)];
                ("kill in a rebuild", steps)
            }
            Kind::CrashRebuild => {
                let mut steps = self.crash(purchases, &["rebuild."]);
                steps.insert(2, Rebuild);
                ("crash in a rebuild", steps)
            }
        };
        Fault { name, steps }
    }

    /// Crashes a service at a crash point whose name has one of these beginnings.
    fn crash(&mut self, service: Service, beginnings: &[&str]) -> Vec<Step> {
        let begins = |point: &&&str| beginnings.iter().any(|with| point.starts_with(with));
        let points: Vec<_> = crash::POINTS.iter().filter(begins).collect();
        let point = points[index(self.random.below(points.len() as u64))];
        // A rebuild passes most of its crash points once.
        let often = if point.starts_with("rebuild.") {
            1
        } else {
            PASS_MAX
        };
        let pass = 1 + self.random.below(often);
        let armed = Step::StartArmed(service, point, pass);
        vec![Step::Kill(service), armed, self.work(40)]
    }

    fn source(&mut self) -> Service {
        Service::SOURCES[index(self.random.below(3))]
    }

    fn work(&mut self, most: u64) -> Step {
        Step::Work(3 + self.random.below(most))
    }
}

impl Kind {
    const ALL: [Self; 22] = [
        Self::Kill(Service::Users),
        Self::Kill(Service::Products),
        Self::Kill(Service::Orders),
        Self::Kill(Service::Purchases),
        Self::Pause,
        Self::KillBroker,
        Self::PauseBroker,
        Self::OldStore,
        Self::LoseStore,
        Self::LoseStream,
        Self::LoseConsumers,
        Self::PublishAgain,
        Self::DeleteEvent,
        Self::Rival,
        Self::LoseReadStore,
        Self::LostAnswer,
        Self::CrashSource,
        Self::CrashOrders,
        Self::CrashPurchases,
        Self::Rebuild,
        Self::KillRebuild,
        Self::CrashRebuild,
    ];
}
