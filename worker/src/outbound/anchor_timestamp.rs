//! The time of a head, signed by an outside authority: RFC 3161 over HTTP (section 3.4).

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use http::{StatusCode, header};
use muneem_jobs::{
    evidence::timestamp::{self, LONGEST, MEDIA_TYPES, Roots},
    outbound::{Anchor, AnchorError, AnchorKind, Chance},
};
use reqwest::Client;

/// One authority. Its answer is checked wholly before it counts: that it answers this request, its signature, and its
/// certificate up to one of the configured roots. What is on the line in between need not be trusted, so plain HTTP, as
/// most authorities have it, will do.
pub struct TimestampAnchor {
    name: String,
    url: String,
    roots: Roots,
    every: Duration,
    http: Client,
    chance: Arc<dyn Chance>,
}

impl TimestampAnchor {
    /// The authority at `url`, asked through `http`, believed by `roots`.
    pub fn new(
        name: String,
        url: String,
        roots: Roots,
        every: Duration,
        (http, chance): (Client, Arc<dyn Chance>),
    ) -> Self {
        Self { name, url, roots, every, http, chance }
    }

    async fn ask(&self, request: Vec<u8>) -> Result<Vec<u8>, AnchorError> {
        let failed = |error: reqwest::Error| {
            // A URL may hold a password of the authority's customer.
            AnchorError::because("the authority could not be asked", error.without_url())
        };
        let (query, reply) = MEDIA_TYPES;
        let call = self.http.post(&self.url).header(header::CONTENT_TYPE, query).header(header::ACCEPT, reply);
        let mut answer = call.body(request).send().await.map_err(failed)?;
        if answer.status() != StatusCode::OK {
            return Err(AnchorError::new(format!("the authority answered with HTTP {}", answer.status().as_u16())));
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(failed)? {
            if bytes.len() + chunk.len() > LONGEST {
                return Err(AnchorError::new(format!("the authority answered with more than {LONGEST} bytes")));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }
}

#[async_trait]
impl Anchor for TimestampAnchor {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> AnchorKind {
        AnchorKind::Timestamp
    }

    fn every(&self) -> Duration {
        self.every
    }

    fn remembers(&self) -> bool {
        false
    }

    fn is_outside(&self) -> bool {
        true
    }

    async fn lay(&self, _: u64, note: &str) -> Result<Vec<u8>, AnchorError> {
        let mut nonce = [0; 8];
        self.chance.fill(&mut nonce);
        let answer = self.ask(timestamp::request(note, nonce)).await?;
        let off = |error| AnchorError::because("the time stamp was not taken: it", error);
        let token = timestamp::token_of(&answer, nonce).map_err(off)?;
        timestamp::verify(&token, note, Some(&self.roots)).map_err(off)?;
        Ok(token)
    }

    async fn latest(&self) -> Result<Option<String>, AnchorError> {
        Ok(None)
    }
}
