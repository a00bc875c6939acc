//! How the stand-in is set up.

use std::{net::SocketAddr, time::Duration};

use muneem_jobs::{messaging::Credentials, outbound::Phone};

use super::fault::Pace;
use crate::outbound::clock::MovedClock;

/// How the stand-in is set up.
#[derive(Clone)]
pub struct Options {
    /// Where it listens; loopback only.
    pub listen: SocketAddr,
    /// Where its mail server listens; loopback only. None: it has none.
    pub mail: Option<SocketAddr>,
    /// Start of its chances: the same seed and requests, the same ids and faults.
    pub seed: u64,
    /// Where webhooks go of numbers without an address of their own; `POST /sandbox/callback` changes it.
    pub callback_url: Option<String>,
    /// What callers must show, and what webhooks are signed with.
    pub credentials: Credentials,
    /// The numbers it knows.
    pub numbers: Vec<Number>,
    /// How quickly messages get on.
    pub pace: Pace,
    /// It has our own templates from the beginning, approved.
    pub seed_templates: bool,
    /// How long the review of a template takes, which then ends well. None: it stays pending until it is scripted.
    pub review: Option<Duration>,
    /// Its clock. A test that shares one with the application moves both at once.
    pub clock: MovedClock,
}

/// A business's number.
#[derive(Clone)]
pub struct Number {
    /// `phone_number_id`.
    pub id: String,
    /// The account it belongs to.
    pub waba_id: String,
    /// The name in the chat's head.
    pub business_name: String,
    /// The number in the chat's head.
    pub display_phone: Phone,
    /// Put before recipients without a plus.
    pub country_code: &'static str,
    /// Its throughput: 80, or 1000 after the upgrade.
    pub messages_per_second: u32,
    /// Its own app's, where it is not the stand-in's.
    pub credentials: Option<Credentials>,
    /// Where its webhooks go, where it is not where all go.
    pub callback_url: Option<String>,
}

impl std::fmt::Debug for Number {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Number").field("id", &self.id).field("waba_id", &self.waba_id).finish_non_exhaustive()
    }
}

impl Number {
    /// An Indian number of the stand-in's own app, with the throughput that every number begins with.
    pub fn new(id: &str, waba_id: &str, business_name: &str, display_phone: Phone) -> Self {
        Self {
            id: id.to_owned(),
            waba_id: waba_id.to_owned(),
            business_name: business_name.to_owned(),
            display_phone,
            country_code: "91",
            messages_per_second: 80,
            credentials: None,
            callback_url: None,
        }
    }
}

impl Options {
    /// `phone_number_id` of the number that [`Self::local`] knows.
    pub const NUMBER: &'static str = "106540352242922";
    /// Its account.
    pub const ACCOUNT: &'static str = "102290129340398";
    /// The app whose token [`Self::local`] knows; sample files are uploaded to it.
    pub const APP: &'static str = "670843887433847";

    /// A stand-in for one shop, with secrets that are none: they open nothing but this.
    pub fn local(listen: SocketAddr, seed: u64) -> Self {
        let phone = Phone::parse("+919800000001").expect("an Indian mobile");
        Self {
            listen,
            mail: Some(SocketAddr::new(listen.ip(), 0)),
            seed,
            callback_url: None,
            credentials: Credentials {
                access_token: "sandbox-access-token".to_owned().into(),
                app_secrets: vec!["sandbox-app-secret".to_owned().into()],
                verify_token: "sandbox-verify-token".to_owned().into(),
            },
            numbers: vec![Number::new(Self::NUMBER, Self::ACCOUNT, "Sharma Mobiles", phone)],
            pace: Pace::LIVELY,
            seed_templates: true,
            review: Some(Duration::from_secs(2)),
            clock: MovedClock::default(),
        }
    }
}
