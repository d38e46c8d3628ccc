//! What the author of a service imports: `use headwater::prelude::*;`.
//!
//! With it, a crate needs neither axum, sea-orm, utoipa nor uuid among its dependencies: their
//! macros find them here.

pub use crate::database::{Migration, Snapshot, Tx, WriteError};
pub use crate::http::{
    About, After, Answer, IdempotencyKey, Invalid, Json, Path, Problem, Query, with_position,
};
pub use crate::idempotency::{self, Fingerprint};
pub use crate::outbox;
pub use crate::projection::{Progress, as_of};
pub use crate::{
    ApplyError, Config, Database, Envelope, Event, Position, Positions, Process, Projection,
    Service, Upcast,
};
pub use axum::{self, extract::State, response::Response};
pub use sea_orm::{self, ConnectionTrait, DbErr, FromQueryResult, raw_sql};
pub use utoipa::{self, ToSchema};
pub use utoipa_axum::{self, router::OpenApiRouter, routes};
pub use uuid::Uuid;
