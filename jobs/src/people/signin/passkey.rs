//! Passkeys (W3C Web Authentication Level 3): a key pair in the phone or laptop, unlocked by finger, face or PIN.
//!
//! The authenticator must have verified its holder (UV), the answer must come from the console's own origin, and each
//! challenge is answered once: its state lies in the database and goes with the first answer, right or wrong. A
//! counter that goes back means that somewhere there is a copy: the passkey opens nothing any more, and its owner is
//! to be told ([`Proof::Copied`]).

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use sqlx::{Connection, PgConnection};
use uuid::Uuid;
use webauthn_rs::prelude::{
    AuthenticationResult, CredentialID, Passkey as Credential, PasskeyAuthentication, PasskeyRegistration,
    PublicKeyCredential, RegisterPublicKeyCredential, Url, Webauthn, WebauthnBuilder, WebauthnError,
};

use super::{Error, passkey_store};
use crate::outbound::Chance;

/// Life of a challenge.
const CHALLENGE_LIFE: TimeDelta = TimeDelta::minutes(5);
/// Passkeys of one person.
const PASSKEYS_MAX: usize = 20;

crate::id_type! {
    /// One challenge given to a browser.
    ChallengeId
}

/// One passkey, as its owner sees it in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Passkey {
    /// Its id, in URL-safe base 64.
    pub credential_id: String,
    /// What she calls it.
    pub label: String,
    /// When it was made.
    pub made_at: DateTime<Utc>,
    /// When it was last used.
    pub used_at: Option<DateTime<Utc>>,
    /// When its counter went back.
    pub suspect_at: Option<DateTime<Utc>>,
}

/// What an answer to a challenge proves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// Her own passkey, in her hand.
    Right,
    /// Nothing.
    Wrong,
    /// It has been copied: its counter went back. It is out of use now; tell its owner. Holds its label.
    Copied(String),
}

/// The console as passkeys know it: its origin, and the host as the name that they are bound to.
#[derive(Debug)]
pub struct Passkeys {
    webauthn: Webauthn,
}

impl Passkeys {
    /// `origin` is what stands in the browser's address bar: `https://console.example.in`. Browsers know passkeys on
    /// `https` and on `localhost` alone.
    ///
    /// # Errors
    /// [`Error::BadOrigin`]
    pub fn new(origin: &str) -> Result<Self, Error> {
        let origin = Url::parse(origin).map_err(|_| Error::BadOrigin)?;
        let host = origin.domain().ok_or(Error::BadOrigin)?;
        if origin.scheme() != "https" && host != "localhost" {
            return Err(Error::BadOrigin);
        }
        let builder = WebauthnBuilder::new(host, &origin).map_err(|_| Error::BadOrigin)?;
        let webauthn = builder.rp_name("muneem").build().map_err(|_| Error::BadOrigin)?;
        Ok(Self { webauthn })
    }

    /// Begins to make a passkey: what `navigator.credentials.create` takes. `name` is shown by the browser.
    ///
    /// # Errors
    /// [`Error::TooManyPasskeys`]
    #[expect(clippy::too_many_arguments, reason = "a challenge has that many parts")]
    pub async fn begin_registration(
        &self,
        db: &mut PgConnection,
        staff: Uuid,
        name: &str,
        now: DateTime<Utc>,
        chance: &dyn Chance,
    ) -> Result<(ChallengeId, Value), Error> {
        let known: Vec<CredentialID> =
            passkey_store::list_passkeys(db, staff).await?.into_iter().map(|row| row.credential_id).collect();
        if known.len() >= PASSKEYS_MAX {
            return Err(Error::TooManyPasskeys);
        }
        let (options, state) =
            self.webauthn.start_passkey_registration(staff, name, name, Some(known)).map_err(refused)?;
        let challenge = keep(db, staff, "register", &state, now, chance).await?;
        Ok((challenge, json(&options)?))
    }

    /// Keeps the passkey that the browser made.
    ///
    /// # Errors
    /// [`Error::PasskeyRefused`]: the challenge was answered, ran out or is another's; wrong origin, holder not
    /// verified; the passkey is known already.
    #[expect(clippy::too_many_arguments, reason = "an answer has that many parts")]
    pub async fn finish_registration(
        &self,
        db: &mut PgConnection,
        staff: Uuid,
        challenge: ChallengeId,
        answer: Value,
        label: &str,
        now: DateTime<Utc>,
    ) -> Result<(), Error> {
        let state: PasskeyRegistration = take(db, staff, challenge, "register", now).await?;
        let answer: RegisterPublicKeyCredential = serde_json::from_value(answer).map_err(|_| unreadable())?;
        let made = self.webauthn.finish_passkey_registration(&answer, &state).map_err(refused)?;
        let label: String = label.trim().chars().filter(|character| !character.is_control()).take(60).collect();
        let label = if label.is_empty() { "passkey".to_owned() } else { label };
        let now = now.trunc_subsecs(6);
        match passkey_store::insert_passkey(db, staff, made.cred_id().as_ref(), &label, &json(&made)?, now).await? {
            1 => Ok(()),
            _ => Err(Error::PasskeyRefused("it is registered already".to_owned())),
        }
    }

    /// Asks for a proof: what `navigator.credentials.get` takes. `None`: she has no passkey that works.
    ///
    /// # Errors
    /// The database fails.
    pub async fn begin_proof(
        &self,
        db: &mut PgConnection,
        staff: Uuid,
        now: DateTime<Utc>,
        chance: &dyn Chance,
    ) -> Result<Option<(ChallengeId, Value)>, Error> {
        let mut credentials = Vec::new();
        for row in passkey_store::list_passkeys(db, staff).await? {
            if row.suspect_at.is_none() {
                credentials.push(credential(row.credential)?);
            }
        }
        if credentials.is_empty() {
            return Ok(None);
        }
        let (options, state) = self.webauthn.start_passkey_authentication(&credentials).map_err(refused)?;
        let challenge = keep(db, staff, "prove", &state, now, chance).await?;
        Ok(Some((challenge, json(&options)?)))
    }

    /// Looks at the browser's answer.
    ///
    /// # Errors
    /// The database fails. An answer that proves nothing is [`Proof::Wrong`].
    #[expect(clippy::too_many_arguments, reason = "an answer has that many parts")]
    pub async fn finish_proof(
        &self,
        db: &mut PgConnection,
        staff: Uuid,
        challenge: ChallengeId,
        answer: Value,
        now: DateTime<Utc>,
    ) -> Result<Proof, Error> {
        let state: PasskeyAuthentication = match take(db, staff, challenge, "prove", now).await {
            Ok(state) => state,
            Err(Error::PasskeyRefused(_)) => return Ok(Proof::Wrong),
            Err(error) => return Err(error),
        };
        let Ok(answer) = serde_json::from_value::<PublicKeyCredential>(answer) else { return Ok(Proof::Wrong) };
        let now = now.trunc_subsecs(6);
        let mut tx = db.begin().await?;
        let proof = match self.webauthn.finish_passkey_authentication(&answer, &state) {
            Ok(result) if result.user_verified() => count(&mut tx, staff, &result, now).await?,
            // The signature is right and the counter is not.
            Err(WebauthnError::CredentialPossibleCompromise) => {
                suspect(&mut tx, staff, answer.raw_id.as_ref(), now).await?
            }
            Ok(_) | Err(_) => Proof::Wrong,
        };
        tx.commit().await?;
        Ok(proof)
    }
}

/// Her passkeys, oldest first.
///
/// # Errors
/// The database fails.
pub async fn list_passkeys(db: &mut PgConnection, staff: Uuid) -> Result<Vec<Passkey>, Error> {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    let rows = passkey_store::list_passkeys(db, staff).await?;
    let shown = |row: passkey_store::PasskeyRow| Passkey {
        credential_id: URL_SAFE_NO_PAD.encode(row.credential_id),
        label: row.label,
        made_at: row.made_at,
        used_at: row.used_at,
        suspect_at: row.suspect_at,
    };
    Ok(rows.into_iter().map(shown).collect())
}

/// Takes one of her passkeys away. `false`: she has no such.
///
/// # Errors
/// The database fails.
pub async fn remove_passkey(db: &mut PgConnection, staff: Uuid, credential_id: &str) -> Result<bool, Error> {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    let Ok(id) = URL_SAFE_NO_PAD.decode(credential_id) else { return Ok(false) };
    Ok(passkey_store::delete_passkey(db, staff, &id).await? == 1)
}

/// Two answers at once were both given the counter of before: the one that the row holds now decides.
async fn count(
    tx: &mut PgConnection,
    staff: Uuid,
    result: &AuthenticationResult,
    now: DateTime<Utc>,
) -> Result<Proof, Error> {
    let id = result.cred_id().as_ref();
    let Some(row) = passkey_store::lock_passkey(tx, staff, id).await?.filter(|row| row.suspect_at.is_none()) else {
        return Ok(Proof::Wrong);
    };
    let counter = i64::from(result.counter());
    if (counter > 0 || row.counter > 0) && counter <= row.counter {
        return suspect(tx, staff, id, now).await;
    }
    let mut kept = credential(row.credential)?;
    kept.update_credential(result);
    passkey_store::use_passkey(tx, id, &json(&kept)?, counter, now).await?;
    Ok(Proof::Right)
}

async fn suspect(tx: &mut PgConnection, staff: Uuid, id: &[u8], now: DateTime<Utc>) -> Result<Proof, Error> {
    let label = passkey_store::suspect_passkey(tx, staff, id, now).await?;
    Ok(label.map_or(Proof::Wrong, Proof::Copied))
}

#[expect(clippy::too_many_arguments, reason = "a challenge has that many parts")]
async fn keep(
    db: &mut PgConnection,
    staff: Uuid,
    purpose: &str,
    state: &impl Serialize,
    now: DateTime<Utc>,
    chance: &dyn Chance,
) -> Result<ChallengeId, Error> {
    let challenge = ChallengeId(chance.uuid_v7(now));
    passkey_store::insert_challenge(db, challenge, staff, purpose, &json(state)?, now + CHALLENGE_LIFE).await?;
    Ok(challenge)
}

/// Takes the state away with the first answer: of two answers one is looked at.
async fn take<T: DeserializeOwned>(
    db: &mut PgConnection,
    staff: Uuid,
    challenge: ChallengeId,
    purpose: &str,
    now: DateTime<Utc>,
) -> Result<T, Error> {
    let state = passkey_store::take_challenge(db, challenge, staff, purpose, now).await?;
    let state = state.ok_or_else(|| Error::PasskeyRefused("the challenge was answered or ran out".to_owned()))?;
    serde_json::from_value(state).map_err(|_| unreadable())
}

fn credential(kept: Value) -> Result<Credential, Error> {
    serde_json::from_value(kept).map_err(|_| unreadable())
}

fn json(value: &impl Serialize) -> Result<Value, Error> {
    serde_json::to_value(value).map_err(|_| unreadable())
}

fn unreadable() -> Error {
    Error::PasskeyRefused("it cannot be read".to_owned())
}

/// The library's words name rules, not people.
#[expect(clippy::needless_pass_by_value, reason = "it is made for map_err")]
fn refused(error: WebauthnError) -> Error {
    Error::PasskeyRefused(error.to_string())
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;
    use muneem_postgres::testing::TestDb;
    use serde_json::json;

    use super::{
        super::authenticator::{ORIGIN, Token},
        *,
    };

    const ASHA: Uuid = Uuid::from_u128(1);

    struct OnlyIds(std::sync::atomic::AtomicU8);

    impl Chance for OnlyIds {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        }
    }

    struct Desk {
        db: TestDb,
        passkeys: Passkeys,
        chance: OnlyIds,
        now: DateTime<Utc>,
    }

    impl Desk {
        async fn open() -> Self {
            let db = TestDb::new(&crate::MIGRATOR).await;
            super::super::tests::add_staff(&db, &[ASHA, Uuid::from_u128(2)]).await;
            Self {
                db,
                passkeys: Passkeys::new(ORIGIN).expect("an origin"),
                chance: OnlyIds(1.into()),
                now: "2026-11-23T06:30:00Z".parse().expect("an instant"),
            }
        }

        async fn conn(&self) -> sqlx::pool::PoolConnection<sqlx::Postgres> {
            self.db.app_pool().acquire().await.expect("a connection")
        }

        async fn register(&self, token: &Token) -> Result<(), Error> {
            let mut db = self.conn().await;
            let (challenge, options) =
                self.passkeys.begin_registration(&mut db, ASHA, "Asha", self.now, &self.chance).await.expect("begun");
            self.passkeys
                .finish_registration(&mut db, ASHA, challenge, token.create(&options), " laptop ", self.now)
                .await
        }

        async fn challenge(&self) -> (ChallengeId, Value) {
            let mut db = self.conn().await;
            let begun = self.passkeys.begin_proof(&mut db, ASHA, self.now, &self.chance).await.expect("begun");
            begun.expect("she has a passkey")
        }

        async fn prove(&self, staff: Uuid, challenge: ChallengeId, answer: Value) -> Proof {
            self.passkeys
                .finish_proof(&mut *self.conn().await, staff, challenge, answer, self.now)
                .await
                .expect("looked at")
        }
    }

    #[tokio::test]
    async fn a_passkey_is_made_used_listed_and_taken_away() {
        let desk = Desk::open().await;
        let mut token = Token::new(1);
        desk.register(&token).await.expect("registered");
        assert!(matches!(desk.register(&token).await, Err(Error::PasskeyRefused(_))), "twice");
        for counter in [1, 2, 7] {
            token.counter = counter;
            let (challenge, options) = desk.challenge().await;
            assert_eq!(desk.prove(ASHA, challenge, token.get(&options)).await, Proof::Right);
        }
        let mut db = desk.conn().await;
        let listed = list_passkeys(&mut db, ASHA).await.expect("listed");
        assert_eq!((listed.len(), listed[0].label.as_str(), listed[0].used_at), (1, "laptop", Some(desk.now)));
        let id = &listed[0].credential_id;
        assert!(!remove_passkey(&mut db, Uuid::from_u128(2), id).await.expect("asked"), "somebody else's");
        assert!(remove_passkey(&mut db, ASHA, id).await.expect("asked"));
        assert!(desk.passkeys.begin_proof(&mut db, ASHA, desk.now, &desk.chance).await.expect("begun").is_none());
    }

    #[tokio::test]
    async fn atk_058_wrong_origin_unverified_holder_and_replay_are_refused() {
        let desk = Desk::open().await;
        let good = Token::new(1);
        let spoilt = [
            ("another origin", Token { origin: "https://console.example.in.evil.example", ..good.clone() }),
            ("a subdomain", Token { origin: "https://pay.console.example.in", ..good.clone() }),
            ("another port", Token { origin: "https://console.example.in:8443", ..good.clone() }),
            ("plain http", Token { origin: "http://console.example.in", ..good.clone() }),
            ("another relying party", Token { rp_id: "example.in", ..good.clone() }),
            ("holder not verified", Token { verified: false, ..good.clone() }),
        ];
        for (what, token) in &spoilt {
            assert!(matches!(desk.register(token).await, Err(Error::PasskeyRefused(_))), "{what} registers");
        }
        desk.register(&good).await.expect("registered");
        for (what, token) in &spoilt {
            let (challenge, options) = desk.challenge().await;
            assert_eq!(desk.prove(ASHA, challenge, token.get(&options)).await, Proof::Wrong, "{what} proves");
        }
        // Signed with another key under her id.
        let forged = Token { key: Token::new(2).key, ..good.clone() };
        let (challenge, options) = desk.challenge().await;
        assert_eq!(desk.prove(ASHA, challenge, forged.get(&options)).await, Proof::Wrong);
        // One challenge, one answer: the right one comes too late; an answer to one challenge is none to another.
        assert_eq!(desk.prove(ASHA, challenge, good.get(&options)).await, Proof::Wrong);
        let ((first, options), (second, _)) = (desk.challenge().await, desk.challenge().await);
        assert_eq!(desk.prove(ASHA, second, good.get(&options)).await, Proof::Wrong);
        assert_eq!(desk.prove(Uuid::from_u128(2), first, good.get(&options)).await, Proof::Wrong, "somebody else");
        assert_eq!(desk.prove(ASHA, first, json!({ "id": 1 })).await, Proof::Wrong);
        let mut db = desk.conn().await;
        let (late, options) = desk.challenge().await;
        let at = desk.now + CHALLENGE_LIFE;
        let proof = desk.passkeys.finish_proof(&mut db, ASHA, late, good.get(&options), at).await.expect("looked at");
        assert_eq!(proof, Proof::Wrong, "too late");
        assert!(list_passkeys(&mut db, ASHA).await.expect("listed")[0].suspect_at.is_none(), "nothing was copied");
    }

    #[tokio::test]
    async fn atk_058_a_counter_that_goes_back_puts_the_passkey_out_of_use() {
        let desk = Desk::open().await;
        let mut token = Token::new(1);
        desk.register(&token).await.expect("registered");
        token.counter = 5;
        let (challenge, options) = desk.challenge().await;
        assert_eq!(desk.prove(ASHA, challenge, token.get(&options)).await, Proof::Right);

        // The original and its copy answer at once with the same count: one is right, the other gives it away.
        token.counter = 6;
        let challenges = [desk.challenge().await, desk.challenge().await];
        let answers =
            challenges.into_iter().map(|(challenge, options)| desk.prove(ASHA, challenge, token.get(&options)));
        let mut proofs = join_all(answers).await;
        proofs.sort_by_key(|proof| *proof != Proof::Right);
        assert_eq!(proofs, [Proof::Right, Proof::Copied("laptop".to_owned())]);
        let mut db = desk.conn().await;
        assert!(desk.passkeys.begin_proof(&mut db, ASHA, desk.now, &desk.chance).await.expect("begun").is_none());

        // And plainly, one after the other.
        let mut other = Token { counter: 9, ..Token::new(2) };
        desk.register(&other).await.expect("registered");
        let (before, options) = desk.challenge().await;
        other.counter = 8;
        assert_eq!(desk.prove(ASHA, before, other.get(&options)).await, Proof::Copied("laptop".to_owned()));
    }

    #[test]
    fn an_origin_is_one_that_browsers_know_passkeys_on() {
        for good in ["https://console.example.in", "http://localhost:8787", "https://shop.example.in:8443"] {
            assert!(Passkeys::new(good).is_ok(), "{good}");
        }
        for bad in
            ["", "console.example.in", "http://console.example.in", "https://10.0.0.1", "ftp://console.example.in"]
        {
            assert!(matches!(Passkeys::new(bad), Err(Error::BadOrigin)), "{bad}");
        }
    }
}
