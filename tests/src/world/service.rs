//! The services of the shop, from the list in their manifests: see `tests/build.rs`.

include!(concat!(env!("OUT_DIR"), "/service.rs"));
