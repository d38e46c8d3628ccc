//! The events. Services of the shop have theirs in `crates/shop/shop-events`.

headwater::include_events!();
