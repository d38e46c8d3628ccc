//! The services of the shop: one list, and what follows from it.
//!
//! The list is `[package.metadata.headwater]` in the manifests below `crates/shop`. A list in a file
//! of its own would be one more file that everybody changes; so a service is added with its folder,
//! and removed with it. [`deploy::files`] has the files of `deploy/` that name every service.

mod accounts;
pub mod deploy;
mod service;

pub use service::{Service, Style, services};
