use crate::{
    evidence, invoice, messaging,
    people::{self, signin},
    queue::{self, Kind},
    vault,
};

/// Every kind of job: the one list of them. `muneem migrate` publishes it in `muneem.queue_kinds`.
pub fn kinds() -> Vec<Kind> {
    vec![
        Kind::of::<invoice::Issue>(),
        Kind::of::<invoice::Render>(),
        Kind::of::<invoice::HandOver>(),
        Kind::of::<messaging::Send>(),
        Kind::of::<messaging::Reconcile>(),
        Kind::of::<messaging::ApplyWebhook>(),
        Kind::of::<messaging::SendMail>(),
        Kind::of::<messaging::SendLink>(),
        Kind::of::<messaging::mail::ApplyMailReport>(),
        Kind::of::<messaging::mail::VerifyMailIdentity>(),
        Kind::of::<messaging::WarnStaff>(),
        Kind::of::<signin::EndFactor>(),
        Kind::of::<signin::ForgetSessions>(),
        Kind::of::<people::approval::EndApproval>(),
        Kind::of::<people::links::SendLink>(),
        Kind::of::<people::support::EndSupport>(),
        Kind::of::<queue::ReapLeases>(),
        Kind::of::<queue::SealWaiting>(),
        Kind::of::<queue::ForgetFinished>(),
        Kind::of::<evidence::MakeMonths>(),
        Kind::of::<evidence::RetireBodies>(),
        Kind::of::<evidence::CheckLog>(),
        Kind::of::<vault::RotateKeys>(),
        Kind::of::<vault::Reseal>(),
        Kind::of::<vault::CheckColumns>(),
    ]
}
