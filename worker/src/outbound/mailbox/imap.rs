//! A mailbox by IMAP (RFC 9051) under TLS from the first byte.
//!
//! UIDs only grow while the mailbox's UIDVALIDITY stays, so the last one that was kept is all that has to be known. A
//! new UIDVALIDITY means a new count: everything is read again, and known again by its digest.

use std::{sync::Arc, time::Duration};

use async_imap::{Client, Session};
use futures_util::TryStreamExt;
use muneem_jobs::messaging::mail::{Place, Source, find_place};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{AT_ONCE, Error, Keeper, LARGEST};

/// How to reach a mailbox.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The server's name, which its certificate must hold.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Whom to sign in as.
    pub user: String,
    /// The password that goes with it.
    pub password: SecretString,
    /// The mailbox.
    pub mailbox: String,
    /// Where what was read is moved; `None`: it is marked as seen.
    pub move_to: Option<String>,
    /// Certificates, as PEM, that vouch for the server in the place of this machine's own.
    pub tls_roots: Option<Vec<u8>>,
    /// Longest one look may take.
    pub timeout: Duration,
}

/// A mailbox.
pub struct Imap {
    settings: Settings,
    tls: Arc<ClientConfig>,
    server: ServerName<'static>,
    /// What its place is kept under: who reads the table learns no names.
    name: String,
}

type Talk = Session<TlsStream<TcpStream>>;

impl Imap {
    /// Prepares; nothing is connected yet.
    ///
    /// # Errors
    /// The host's name or the certificates cannot be used.
    pub fn new(settings: Settings) -> Result<Self, Error> {
        let server = ServerName::try_from(settings.host.clone());
        let server = server.map_err(|_| Error::Imap("the server's name is none"))?;
        let mut roots = RootCertStore::empty();
        match &settings.tls_roots {
            Some(pem) => {
                for certificate in CertificateDer::pem_slice_iter(pem) {
                    let added = certificate.map_err(|error| error.to_string());
                    added
                        .and_then(|certificate| roots.add(certificate).map_err(|error| error.to_string()))
                        .map_err(Error::Roots)?;
                }
            }
            None => drop(roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)),
        }
        if roots.is_empty() {
            return Err(Error::Roots("it holds no certificate".to_owned()));
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|_| Error::Imap("no TLS here"))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let Settings { host, port, user, mailbox, .. } = &settings;
        let name = hex::encode(Sha256::digest(format!("{host}\0{port}\0{user}\0{mailbox}")));
        Ok(Self { tls: Arc::new(tls), server, name, settings })
    }

    /// Reads what came since the last look, at most [`AT_ONCE`] of it; how much that was.
    pub(super) async fn look(&self, keeper: &Keeper) -> Result<usize, Error> {
        timeout(self.settings.timeout, self.read(keeper)).await.map_err(|_| Error::Slow)?
    }

    async fn read(&self, keeper: &Keeper) -> Result<usize, Error> {
        let mut talk = self.sign_in().await?;
        let said = |what| move |_: async_imap::error::Error| Error::Imap(what);
        let mailbox = talk.select(&self.settings.mailbox).await.map_err(said("the mailbox cannot be opened"))?;
        let uid_validity = mailbox.uid_validity.ok_or(Error::Imap("the mailbox has no UIDVALIDITY"))?;
        let known = find_place(&mut *keeper.db.acquire().await?, &self.name).await?;
        let after = known.filter(|place| place.uid_validity == uid_validity).map_or(0, |place| place.last_uid);
        let found = talk.uid_search(format!("UID {}:*", after.saturating_add(1))).await;
        let found = found.map_err(said("the mailbox cannot be searched"))?;
        // The last mail matches `n:*` whatever n is.
        let mut uids: Vec<u32> = found.into_iter().filter(|uid| *uid > after).collect();
        uids.sort_unstable();
        uids.truncate(AT_ONCE);
        for uid in &uids {
            let Some(raw) = fetch(&mut talk, *uid).await? else { continue };
            let place = Place { uid_validity, last_uid: *uid };
            keeper.keep(Source::Imap, &raw, Some((&self.name, place))).await?;
            self.put_away(&mut talk, *uid).await?;
        }
        let _ = talk.logout().await;
        Ok(uids.len())
    }

    async fn sign_in(&self) -> Result<Talk, Error> {
        let Settings { host, port, user, password, .. } = &self.settings;
        let stream = TcpStream::connect((host.as_str(), *port)).await;
        let stream = stream.map_err(|_| Error::Imap("the server cannot be reached"))?;
        let stream = TlsConnector::from(Arc::clone(&self.tls)).connect(self.server.clone(), stream).await;
        let mut client = Client::new(stream.map_err(|_| Error::Imap("the server is not believed"))?);
        let greeting = client.read_response().await.map_err(|_| Error::Imap("the server says nothing"))?;
        greeting.ok_or(Error::Imap("the server says nothing"))?;
        let signed_in = client.login(user, password.expose_secret()).await;
        signed_in.map_err(|_| Error::Imap("sign-in refused"))
    }

    /// It is kept: marked as seen, and moved where that is wanted.
    async fn put_away(&self, talk: &mut Talk, uid: u32) -> Result<(), Error> {
        let marked = talk.uid_store(uid.to_string(), "+FLAGS (\\Seen)").await;
        let marked = marked.map_err(|_| Error::Imap("a mail cannot be marked as seen"))?;
        marked.try_collect::<Vec<_>>().await.map_err(|_| Error::Imap("a mail cannot be marked as seen"))?;
        if let Some(to) = &self.settings.move_to {
            talk.uid_mv(uid.to_string(), to).await.map_err(|_| Error::Imap("a mail cannot be moved"))?;
        }
        Ok(())
    }
}

/// The beginning of one mail, unseen as before; `None`: it is gone.
async fn fetch(talk: &mut Talk, uid: u32) -> Result<Option<Vec<u8>>, Error> {
    let said = |_| Error::Imap("a mail cannot be fetched");
    let fetched = talk.uid_fetch(uid.to_string(), format!("(UID BODY.PEEK[]<0.{LARGEST}>)")).await.map_err(said)?;
    let fetched = fetched.try_collect::<Vec<_>>().await.map_err(said)?;
    let one = fetched.iter().find(|one| one.uid == Some(uid));
    Ok(one.and_then(|one| one.body()).map(<[u8]>::to_vec))
}
