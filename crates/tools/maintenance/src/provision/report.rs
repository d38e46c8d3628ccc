//! What will be done, or was done, with streams and consumers.

use std::fmt::{self, Display, Formatter};

use headwater::stream::Difference;
use serde::Serialize;
use terminal::{Exit, printable};

use super::wanted::{Outcome, Wanted, WantedConsumer};

#[derive(Debug, Serialize)]
pub(crate) struct Report {
    is_dry_run: bool,
    streams: Vec<Provided>,
    consumers: Vec<Provided>,
}

#[derive(Debug, Serialize)]
struct Provided {
    stream: String,
    /// The source of the stream; `None` for the bucket.
    source: Option<String>,
    /// The consumer's name, if this is a consumer.
    #[serde(skip_serializing_if = "Option::is_none")]
    consumer: Option<String>,
    outcome: Outcome,
    /// Whether the changes were made.
    is_done: bool,
    differences: Vec<Difference>,
}

impl Report {
    pub(crate) fn of(all: &[Wanted], is_dry_run: bool, is_done: bool) -> Self {
        let provided = |of: &Wanted, consumer: Option<&WantedConsumer>| Provided {
            stream: of.name().to_owned(),
            source: of.source.clone(),
            consumer: consumer.map(|consumer| consumer.name().to_owned()),
            outcome: consumer.map_or_else(|| of.outcome(), WantedConsumer::outcome),
            is_done,
            differences: consumer.map_or_else(|| of.differences(), WantedConsumer::differences),
        };
        let streams = all.iter().map(|of| provided(of, None));
        let consumers = all.iter().flat_map(|of| {
            let consumers = of.consumers.iter();
            consumers.map(move |consumer| provided(of, Some(consumer)))
        });
        Self {
            is_dry_run,
            streams: streams.collect(),
            consumers: consumers.collect(),
        }
    }

    /// One line for each difference.
    pub(crate) fn differing(&self) -> impl Iterator<Item = String> {
        let differing = self.all().filter(|one| one.outcome != Outcome::Same);
        differing.map(ToString::to_string)
    }

    fn all(&self) -> impl Iterator<Item = &Provided> {
        self.streams.iter().chain(&self.consumers)
    }

    /// The names of existing objects that change.
    pub(crate) fn changed(&self) -> Vec<String> {
        let changed = self.all().filter(|one| one.outcome == Outcome::Changed);
        changed.map(Provided::name).collect()
    }

    pub(crate) fn exit(&self) -> Exit {
        let is_well = self.all().all(|one| match one.outcome {
            Outcome::Same => true,
            Outcome::Made | Outcome::Changed => !self.is_dry_run,
            Outcome::Refused => false,
        });
        if is_well { Exit::Done } else { Exit::Different }
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        for provided in self.all() {
            writeln!(f, "{provided}")?;
        }
        f.write_str(match (self.is_dry_run, self.exit()) {
            (true, Exit::Done) => "nothing to do",
            (true, _) => "nothing was done",
            (false, Exit::Done) => "all is as it should be",
            (false, _) => "NOT ALL is as it should be",
        })
    }
}

impl Provided {
    fn name(&self) -> String {
        match &self.consumer {
            Some(consumer) => format!("{} {consumer}", self.stream),
            None => self.stream.clone(),
        }
    }
}

impl Display for Provided {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        let stream = &self.stream;
        write!(f, "{}: ", self.name())?;
        f.write_str(match (self.outcome, self.is_done) {
            (Outcome::Same, _) => "as it should be",
            (Outcome::Made, true) => "created",
            (Outcome::Made, false) => "to be created",
            (Outcome::Changed, true) => "changed",
            (Outcome::Changed, false) => "to be changed",
            (Outcome::Refused, _) => "NOT as it should be, left unchanged",
        })?;
        for difference in &self.differences {
            let (setting, is) = (&difference.setting, printable(&difference.is));
            let wanted = &difference.wanted;
            write!(f, "\n  {setting}\n    - {is}\n    + {wanted}")?;
            if let (false, Some(source)) = (difference.can_change, &self.source) {
                write!(
                    f,
                    "\n    JetStream cannot change a stream's {setting}: while {source} runs, delete the stream (`nats stream rm {stream}`) and provision again, and the relay refills it from the outbox; or keep the stream unchanged"
                )?;
            }
        }
        Ok(())
    }
}
