//! The events, generated from `proto/`.

headwater::include_events!();
