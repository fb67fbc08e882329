//! Deliveries as answers show them.

use serde::Serialize;

use crate::{
    core::{
        ConversionId,
        webhook::{Backfill, Delivery, TestAnswer, webhook_id},
    },
    http::times,
};

/// One attempt.
#[derive(Serialize)]
pub(super) struct DeliveryJson<'a> {
    id: String,
    webhook_id: String,
    conversion_id: String,
    goal_id: u32,
    attempt: u8,
    status: Option<u16>,
    error: Option<&'a str>,
    latency_ms: u32,
    at: String,
    next_attempt_at: Option<String>,
    answer: &'a str,
}

impl<'a> From<&'a Delivery> for DeliveryJson<'a> {
    fn from(delivery: &'a Delivery) -> Self {
        Self {
            id: delivery.id.to_string(),
            webhook_id: webhook_id(delivery.conversion_id),
            conversion_id: delivery.conversion_id.to_string(),
            goal_id: delivery.goal_id.0,
            attempt: delivery.attempt,
            status: delivery.status,
            error: filled(&delivery.error),
            latency_ms: delivery.latency_millis,
            at: times::utc(delivery.at),
            next_attempt_at: delivery.next_attempt_at.map(times::utc),
            answer: &delivery.answer,
        }
    }
}

/// A postback that was queued once more.
#[derive(Serialize)]
pub(super) struct ReplayJson {
    webhook_id: String,
    conversion_id: String,
}

impl From<ConversionId> for ReplayJson {
    fn from(conversion: ConversionId) -> Self {
        Self { webhook_id: webhook_id(conversion), conversion_id: conversion.to_string() }
    }
}

/// What a backfill queued.
#[derive(Serialize)]
pub(super) struct BackfillJson {
    queued: u64,
    /// Where to go on; null: that was all.
    next_from: Option<String>,
}

impl From<&Backfill> for BackfillJson {
    fn from(queued: &Backfill) -> Self {
        Self { queued: queued.queued, next_from: queued.next_from.map(times::utc) }
    }
}

/// What an endpoint answered to a sample.
#[derive(Serialize)]
pub(super) struct TestJson<'a> {
    webhook_id: &'a str,
    status: Option<u16>,
    error: Option<&'a str>,
    latency_ms: u32,
    answer: &'a str,
}

impl<'a> From<&'a TestAnswer> for TestJson<'a> {
    fn from(answer: &'a TestAnswer) -> Self {
        Self {
            webhook_id: &answer.webhook_id,
            status: answer.status,
            error: filled(&answer.error),
            latency_ms: answer.latency_millis,
            answer: &answer.answer,
        }
    }
}

fn filled(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}
