//! Tests of the kit itself: it must find planted faults.

mod converges;
