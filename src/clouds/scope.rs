//! The scope that an entry and the command line ask for.

use super::entry::{Dict, text};
use super::resolve::Overrides;
use crate::model::{DomainRef, ProjectRef, Scope};

/// The scope: what the command line names, else the entry's, of which there can be only one kind.
pub(super) fn of(auth: &Dict, overrides: &Overrides) -> Result<Scope, String> {
    let option = |key: &str| auth.get(key).and_then(text);
    // Of an id and a name keystoneauth takes the id.
    let domain = |id: Option<String>, name: Option<String>| match (id, name) {
        (None, None) => None,
        (Some(id), _) => Some(DomainRef { id: Some(id), name: None }),
        (None, name) => Some(DomainRef { id: None, name }),
    };
    let project = |id: Option<String>, name: Option<String>, domain: Option<DomainRef>| match (id, name) {
        (None, None) => None,
        (Some(id), _) => Some(ProjectRef { id: Some(id), ..ProjectRef::default() }),
        (None, name) => Some(ProjectRef { id: None, name, domain }),
    };
    let o = overrides.clone();
    let other_domain = domain(o.project_domain_id, o.project_domain_name);
    let project_domain = || {
        other_domain
            .clone()
            .or_else(|| domain(option("project_domain_id"), option("project_domain_name")))
            .or_else(|| domain(option("default_domain_id"), option("default_domain_name")))
    };

    if o.unscoped {
        return Ok(Scope::Unscoped);
    } else if o.system {
        return Ok(Scope::System { all: true });
    } else if let Some(id) = o.trust_id {
        return Ok(Scope::Trust { id });
    } else if let Some(domain) = domain(o.domain_id, o.domain_name) {
        return Ok(Scope::Domain(domain));
    } else if let Some(project) = project(o.project_id, o.project_name, project_domain()) {
        return Ok(Scope::Project(project));
    }
    let system = match option("system_scope").as_deref() {
        None => None,
        Some("all") => Some(Scope::System { all: true }),
        Some(_) => return Err("`system_scope` can only be `all`".into()),
    };
    let asked = [
        project(option("project_id"), option("project_name"), project_domain()).map(Scope::Project),
        domain(option("domain_id"), option("domain_name")).map(Scope::Domain),
        option("trust_id").map(|id| Scope::Trust { id }),
        system,
    ];
    let mut asked = asked.into_iter().flatten();
    match (asked.next(), asked.next()) {
        (Some(one), Some(other)) => Err(format!("two scopes at once: {one} and {other}")),
        (Some(scope), None) => Ok(scope),
        (None, _) if other_domain.is_some() => Err("a project's domain without a project".into()),
        (None, _) => Ok(Scope::Unscoped),
    }
}
