//! All services on a real broker, used as their users use them.

#![expect(clippy::unwrap_used, reason = "a test ends at what it did not expect")]

mod accessibility;
mod after;
mod ambiguity;
mod bad_input;
mod broker_away;
mod broker_lost;
mod browsers;
mod cluster;
mod containers;
mod crash_points;
mod day_two_start;
mod dead_letters;
mod empty_variables;
mod erasure;
mod events;
mod full_pipe;
mod import;
mod installation;
mod journey;
mod limits;
mod locked_down;
mod memory;
mod metrics;
mod model;
mod moved;
mod nats_cli;
mod notify;
mod openapi;
mod packages;
mod passwords;
mod permissions;
mod power_cuts;
mod private_files;
mod rebuild;
mod redelivery;
mod reload;
mod restored;
mod rivals;
mod slow_link;
mod styles;
mod systemd;
mod tidy;
mod traces;
mod verify;
