-- What is written once is yet sealed anew: the secrets and subjects of identity providers too.
grant update (client_secret_sealed) on muneem.people_oidc_providers to muneem_app;
grant update (subject_sealed) on muneem.people_oidc_links to muneem_app;

select muneem.people_build_wall();
