//! Metrics that the next version (0.2) renames. It still has them under their old names.

/// An old name, today's, and the old and today's name of a label (both empty: unchanged).
type Renamed = [&'static str; 4];

const RENAMED: [Renamed; 4] = [
    [
        "headwater_http_connections_held_total",
        "headwater_http_connection_limit_reached_total",
        "",
        "",
    ],
    [
        "headwater_projection_by_hand_total",
        "headwater_projection_manual_total",
        "",
        "",
    ],
    [
        "headwater_inquiry_stray_answers_total",
        "headwater_request_reply_stray_answers_total",
        "",
        "",
    ],
    [
        "headwater_part_state",
        "headwater_component_state",
        "part=",
        "component=",
    ],
];

/// An exposition in Prometheus' text format, with the old names added at its end.
pub fn with_old_names(exposition: &str) -> String {
    let old = exposition.lines().flat_map(|line| {
        RENAMED.iter().filter_map(move |[before, now, was, is]| {
            let (start, rest) = line.split_once(now)?;
            Some(match start {
                "# HELP " => format!("# HELP {before} Deprecated: renamed to {now}\n"),
                "# TYPE " => format!("# TYPE {before}{rest}\n"),
                _ => format!("{before}{}\n", rest.replacen(is, was, 1)),
            })
        })
    });
    let old: String = old.collect();
    exposition.to_owned() + &old
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_renamed_metric_is_there_under_both_names() {
        let now = "# HELP headwater_component_state How it is\n\
                   # TYPE headwater_component_state gauge\n\
                   headwater_component_state{service=\"users\",component=\"relay\"} 0\n";
        let old = "# HELP headwater_part_state Deprecated: renamed to headwater_component_state\n\
                   # TYPE headwater_part_state gauge\n\
                   headwater_part_state{service=\"users\",part=\"relay\"} 0\n";
        assert_eq!(with_old_names(now), format!("{now}{old}"));
    }
}
