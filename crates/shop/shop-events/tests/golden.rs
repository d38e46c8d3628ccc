//! Every event that was ever released decodes: its bytes are in `golden/`, and stay.

#[test]
fn the_bytes_of_every_released_event_decode() {
    headwater_testkit::golden("tests/golden", &shop_events::SCHEMA, shop_events::key);
}
