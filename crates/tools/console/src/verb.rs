//! What an operator may do, as the parameters of a form name it.

use maintenance::Target;
use survey::event::Place;

use crate::params::Params;

/// How many dead letters one action takes.
pub(crate) const PICKS_MAX: usize = 1_000;

/// An action, not yet done.
#[derive(Clone, Debug)]
pub(crate) enum Verb {
    Retry(Vec<Pick>),
    Discard(Vec<Pick>),
    Pause(Target),
    Resume(Target),
    Rebuild(Target),
    /// A source and the projections that read it; without a source, everything.
    Verify(Option<String>),
    /// What a projection does with an event.
    Replay(Target, Place),
    /// The stream of a source.
    Restore(String),
    /// The database of a service.
    Backup(String),
}

/// A dead letter of a service: `house:7`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Pick {
    pub(crate) service: String,
    pub(crate) id: u64,
}

impl Verb {
    /// Reads the parameters `verb`, `pick`, `service`, `projection`, `source` and `event`. The error
    /// says what is wrong.
    pub(crate) fn parse(params: &Params) -> Result<Self, String> {
        match params.get("verb") {
            "retry" => Ok(Self::Retry(picks(params)?)),
            "discard" => Ok(Self::Discard(picks(params)?)),
            "pause" => Ok(Self::Pause(target(params)?)),
            "resume" => Ok(Self::Resume(target(params)?)),
            "rebuild" => Ok(Self::Rebuild(target(params)?)),
            "verify" if params.get("source").is_empty() => Ok(Self::Verify(None)),
            "verify" => Ok(Self::Verify(Some(name(params, "source")?))),
            "replay" => Ok(Self::Replay(target(params)?, params.get("event").parse()?)),
            "restore" => Ok(Self::Restore(name(params, "source")?)),
            "backup" => Ok(Self::Backup(name(params, "service")?)),
            other => Err(format!("`{other}` is not an action")),
        }
    }

    /// What is to be done, as a title and for the log.
    pub(crate) fn what(&self) -> String {
        match self {
            Self::Retry(picks) => format!("retry {}", dead_letters(picks)),
            Self::Discard(picks) => format!("discard {}", dead_letters(picks)),
            Self::Pause(target) => format!("pause the projection {target}"),
            Self::Resume(target) => format!("resume the projection {target}"),
            Self::Rebuild(target) => format!("rebuild the projection {target}"),
            Self::Verify(None) => "verify everything".to_owned(),
            Self::Verify(Some(source)) => format!("verify {source} and its projections"),
            Self::Replay(target, event) => format!("replay {event} on a copy of {target}"),
            Self::Restore(source) => format!("restore the stream of {source}"),
            Self::Backup(service) => format!("back up the database of {service}"),
        }
    }

    /// The page that offers it.
    pub(crate) fn page(&self) -> &'static str {
        match self {
            Self::Retry(_) | Self::Discard(_) => "/dead-letters",
            Self::Replay(..) => "/events",
            _ => "/",
        }
    }

    pub(crate) fn needs_reason(&self) -> bool {
        matches!(self, Self::Discard(_) | Self::Pause(_))
    }

    pub(crate) fn can_cancel(&self) -> bool {
        matches!(
            self,
            Self::Rebuild(_) | Self::Verify(_) | Self::Replay(..) | Self::Backup(_)
        )
    }

    /// Whether it cannot be undone.
    pub(crate) fn is_final(&self) -> bool {
        matches!(self, Self::Discard(_) | Self::Restore(_))
    }
}

fn dead_letters(picks: &[Pick]) -> String {
    let names: Vec<String> = picks.iter().map(Pick::to_string).collect();
    match names.as_slice() {
        [one] => format!("the dead letter {one}"),
        names => format!("{} dead letters: {}", names.len(), names.join(", ")),
    }
}

fn picks(params: &Params) -> Result<Vec<Pick>, String> {
    let picks: Result<Vec<Pick>, String> = params.all("pick").map(Pick::parse).collect();
    let mut picks = picks?;
    picks.sort();
    picks.dedup();
    match picks.len() {
        0 => Err("choose at least one dead letter".to_owned()),
        len if len > PICKS_MAX => Err(format!("choose at most {PICKS_MAX} dead letters at once")),
        _ => Ok(picks),
    }
}

impl Pick {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let parts = text.rsplit_once(':');
        let pick = parts.and_then(|(service, id)| {
            Some(Self {
                service: survey::source(service).ok()?,
                id: id.parse().ok()?,
            })
        });
        pick.ok_or_else(|| format!("`{text}` is not a dead letter"))
    }
}

impl std::fmt::Display for Pick {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{}:{}", self.service, self.id)
    }
}

fn target(params: &Params) -> Result<Target, String> {
    let projection = params.get("projection");
    if projection.is_empty() {
        return Err("name the projection".to_owned());
    }
    Ok(Target {
        service: name(params, "service")?,
        projection: Some(projection.to_owned()),
    })
}

/// The name of a service, which becomes a part of a subject.
fn name(params: &Params, parameter: &str) -> Result<String, String> {
    let given = params.get(parameter);
    survey::source(given).map_err(|why| format!("`{given}` {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(query: &str) -> Result<String, String> {
        Verb::parse(&Params::parse(query.as_bytes())).map(|verb| verb.what())
    }

    #[test]
    fn a_form_names_an_action() {
        let what = |query: &str| parse(query).expect(query);
        assert_eq!(
            what("verb=retry&pick=house:1"),
            "retry the dead letter house:1"
        );
        let two = what("verb=discard&pick=shed:2&pick=house:1&pick=shed:2");
        assert_eq!(two, "discard 2 dead letters: house:1, shed:2");
        let pause = what("verb=pause&service=house&projection=readings");
        assert_eq!(pause, "pause the projection readings of house");
        assert_eq!(what("verb=verify"), "verify everything");
        let replay = what("verb=replay&service=house&projection=readings&event=sensors:7");
        assert_eq!(replay, "replay sensors:7 on a copy of readings of house");
        assert_eq!(
            what("verb=restore&source=orders"),
            "restore the stream of orders"
        );
        assert_eq!(
            what("verb=backup&service=orders"),
            "back up the database of orders"
        );
    }

    #[test]
    fn what_is_no_action_is_refused() {
        for wrong in [
            "",
            "verb=drop",
            "verb=retry",
            "verb=retry&pick=house",
            "verb=discard&pick=ho.use:1",
            "verb=discard&pick=house:-1",
            "verb=pause&service=house",
            "verb=pause&service=a.%3E&projection=p",
            "verb=replay&service=house&projection=readings&event=sensors",
            "verb=restore&source=",
            "verb=restore&source=a.b",
            "verb=backup&service=%3E",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        let many: Vec<String> = (0..=PICKS_MAX)
            .map(|id| format!("pick=house:{id}"))
            .collect();
        assert!(parse(&format!("verb=retry&{}", many.join("&"))).is_err());
    }
}
