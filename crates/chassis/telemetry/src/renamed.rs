//! Metrics that the next version (0.2) renames. It still has them under their old names.

/// The old name, the new name, and a label that is renamed with it.
const RENAMED: [(&str, &str, Option<(&str, &str)>); 4] = [
    (
        "headwater_http_connections_held_total",
        "headwater_http_connection_limit_reached_total",
        None,
    ),
    (
        "headwater_projection_by_hand_total",
        "headwater_projection_manual_total",
        None,
    ),
    (
        "headwater_inquiry_stray_answers_total",
        "headwater_request_reply_stray_answers_total",
        None,
    ),
    (
        "headwater_part_state",
        "headwater_component_state",
        Some(("part=", "component=")),
    ),
];

/// An exposition in Prometheus' text format, with the old names added at its end.
pub fn with_old_names(mut exposition: String) -> String {
    let mut old = String::new();
    for line in exposition.lines() {
        for (before, now, label) in RENAMED {
            let Some((start, rest)) = line.split_once(now) else {
                continue;
            };
            match start {
                "# HELP " => {
                    old += &format!("# HELP {before} Deprecated: renamed to {now}\n");
                }
                "# TYPE " => old += &format!("# TYPE {before}{rest}\n"),
                _ => {
                    let (was, is) = label.unwrap_or_default();
                    old += &format!("{before}{}\n", rest.replacen(is, was, 1));
                }
            }
        }
    }
    exposition.push_str(&old);
    exposition
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
        assert_eq!(with_old_names(now.to_owned()), format!("{now}{old}"));
    }
}
