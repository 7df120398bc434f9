//! What users of the Durable Task Framework rely on, group by group, through the public API. The letters are those of
//! the table of groups in ARCHITECTURE.md.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod support;

mod a_basics;
mod activities_at_work;
mod b_fan_out;
mod c_timers;
mod d_external_events;
mod e_continue_as_new;
mod f_sub_orchestrations;
mod g_errors_and_retries;
mod h_lifecycle;
mod h_rewind;
mod i_determinism;
mod j_payloads;
mod k_query;
mod l_entities;
mod l_locks;
mod limits_and_poison;
mod p_partitions;
mod q_stop;
mod r_converter;
mod r_log_trace;
mod r_middleware;
mod s_soak;
mod s_space;
mod t_scaling;
mod versioning;
