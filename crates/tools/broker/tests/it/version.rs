use broker::{OLDEST, Version};

#[test]
fn versions_are_read_as_servers_print_them() {
    let parsed = |text| Version::parse(text).map(|version| version.to_string());
    assert_eq!(parsed("nats-server: v2.15.1\n").as_deref(), Some("2.15.1"));
    assert_eq!(
        parsed("nats-server: v2.14.0-RC.2").as_deref(),
        Some("2.14.0")
    );
    for other in [
        "",
        "v2.15.1",
        "nats: v2.15.1",
        "nats-server: v2.15",
        "nats-server: v2.15.1.4",
        "nats-server: vx.y.z",
    ] {
        assert_eq!(parsed(other), None, "{other}");
    }
}

#[test]
fn versions_are_compared_as_numbers() {
    assert!(Version::parse("nats-server: v2.9.10").unwrap() < OLDEST);
    assert!(Version::parse("nats-server: v2.14.0").unwrap() >= OLDEST);
    assert!(Version::parse("nats-server: v3.0.0").unwrap() > OLDEST);
}
