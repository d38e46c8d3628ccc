//! Durations in settings: `5s`, `500ms`, `1m30s`.

use std::time::Duration;

/// Reads the duration of a setting: seconds, or numbers with units, as the NATS CLI has them.
///
/// # Errors
/// What the text must be.
pub fn duration(text: &str) -> Result<Duration, String> {
    const WANTED: &str =
        "must be a number of seconds, or numbers with units, such as 500ms or 1m30s";
    let seconds = match text.parse::<f64>() {
        Ok(seconds) => seconds,
        Err(_) => of_units(text).ok_or(WANTED)?,
    };
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

fn of_units(text: &str) -> Option<f64> {
    let (mut sum, mut rest) = (0.0, text);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(digits);
        let end = tail
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        let unit = match unit {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "d" => 86400.0,
            _ => return None,
        };
        sum += number.parse::<f64>().ok()? * unit;
        rest = tail;
    }
    (!text.is_empty()).then_some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_seconds_or_have_units() {
        let millis = |text| duration(text).map(|read| read.as_millis());
        let read = ["5", "0.5", "5s", "250ms", "1m30s", "2h", "1d"].map(millis);
        let expected = [5000, 500, 5000, 250, 90_000, 7_200_000, 86_400_000];
        assert_eq!(read, expected.map(Ok));
        for bad in ["", "s", "5x", "5m3", "-1", "-1s", "1e400", "soon", "nan"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
