//! The events of the service `payments`.

headwater::include_events!();
