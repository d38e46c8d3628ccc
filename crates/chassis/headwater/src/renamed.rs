//! Settings that the next version (0.2) renames. It still accepts the old names, with a warning in
//! the log.

use std::ffi::{OsStr, OsString};

use clap::Command;
use headwater_telemetry::warn_when_started;

/// Flag, variable, the flag of today, and the unit that the old value was in.
type Renamed = (&'static str, &'static str, &'static str, &'static str);

const RENAMED: [Renamed; 8] = [
    (
        "http-header-timeout-s",
        "HEADWATER_HTTP_HEADER_TIMEOUT_S",
        "http-header-timeout",
        "s",
    ),
    (
        "http-write-timeout-s",
        "HEADWATER_HTTP_WRITE_TIMEOUT_S",
        "http-write-timeout",
        "s",
    ),
    (
        "http-timeout-s",
        "HEADWATER_HTTP_TIMEOUT_S",
        "http-timeout",
        "s",
    ),
    (
        "http-after-s",
        "HEADWATER_HTTP_AFTER_S",
        "consistency-timeout",
        "s",
    ),
    (
        "database-slow-ms",
        "HEADWATER_DATABASE_SLOW_MS",
        "database-slow-write",
        "ms",
    ),
    (
        "database-read-ms",
        "HEADWATER_DATABASE_READ_MS",
        "database-read-timeout",
        "ms",
    ),
    ("drain-s", "HEADWATER_DRAIN_S", "drain-timeout", "s"),
    ("answer-ms", "HEADWATER_ANSWER_MS", "answer-timeout", "ms"),
];

/// The command line `words` with the flags of today, among them those that only an old variable
/// sets.
pub(crate) fn replaced(
    command: &Command,
    words: impl IntoIterator<Item = OsString>,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Vec<OsString> {
    let mut words: Vec<_> = words.into_iter().collect();
    for (old, old_variable, flag, unit) in RENAMED {
        let mut arguments = command.get_arguments();
        let Some(argument) = arguments.find(|argument| argument.get_long() == Some(flag)) else {
            continue;
        };
        let is_old = replace(&mut words, old, flag, unit);
        if is_old {
            warn_when_started(format!(
                "--{old} is deprecated: use --{flag}, which takes a unit"
            ));
        }
        let is_set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let Some(mut value) = is_set(old_variable) else {
            continue;
        };
        let today = argument.get_env().and_then(OsStr::to_str);
        warn_when_started(format!(
            "the variable {old_variable} is deprecated: use {}, which takes a unit",
            today.unwrap_or(flag)
        ));
        let is_given = words.iter().any(|word| is_flag(word, flag));
        if !is_given && today.and_then(is_set).is_none() {
            value.push(unit);
            words.extend([format!("--{flag}").into(), value]);
        }
    }
    words
}

/// Replaces `--old 5` and `--old=5` by `--flag=5s`; whether there was one.
fn replace(words: &mut Vec<OsString>, old: &str, flag: &str, unit: &str) -> bool {
    let Some(at) = words.iter().position(|word| is_flag(word, old)) else {
        return false;
    };
    let word = words.remove(at);
    let value = word.to_str().and_then(|word| word.split_once('='));
    let mut value = match value {
        Some((_, value)) => value.into(),
        None if at < words.len() => words.remove(at),
        None => OsString::new(),
    };
    value.push(unit);
    let mut word = OsString::from(format!("--{flag}="));
    word.push(value);
    words.insert(at, word);
    true
}

fn is_flag(word: &OsStr, flag: &str) -> bool {
    let word = word.to_str().and_then(|word| word.strip_prefix("--"));
    word.and_then(|word| word.split('=').next()) == Some(flag)
}

#[cfg(test)]
mod tests {
    use clap::Args as _;

    use super::*;
    use crate::Config;

    fn read(words: &[&str], variables: &[(&str, &str)]) -> Vec<String> {
        let command = Config::augment_args(Command::new("orders"));
        let words = words.iter().map(Into::into);
        let replaced = replaced(&command, words, |name| {
            let value = variables.iter().find(|(known, _)| *known == name);
            value.map(|(_, value)| value.into())
        });
        let text = |word: OsString| word.into_string().unwrap();
        replaced.into_iter().map(text).collect()
    }

    #[test]
    fn old_flags_and_variables_set_what_they_set_before() {
        let words = ["orders", "--drain-s", "7", "--database-read-ms=50"];
        let expected = [
            "orders",
            "--drain-timeout=7s",
            "--database-read-timeout=50ms",
        ];
        assert_eq!(read(&words, &[]), expected);
        let set = [("HEADWATER_DRAIN_S", "7"), ("HEADWATER_ANSWER_MS", "9")];
        assert_eq!(read(&["orders"], &set), ["orders", "--drain-timeout", "7s"]);
    }

    #[test]
    fn a_new_name_beats_an_old_variable() {
        let old = ("HEADWATER_DRAIN_S", "7");
        let words = ["orders", "--drain-timeout=3s"];
        assert_eq!(read(&words, &[old]), words);
        let both = [old, ("HEADWATER_DRAIN_TIMEOUT", "3s")];
        assert_eq!(read(&["orders"], &both), ["orders"]);
    }

    #[test]
    fn every_flag_of_today_exists() {
        let command = Config::augment_args(Command::new("orders"));
        for (_, _, flag, _) in RENAMED {
            let is_known = command
                .get_arguments()
                .any(|arg| arg.get_long() == Some(flag));
            assert!(is_known || flag == "answer-timeout", "{flag}");
        }
    }
}
