//! An org's users and groups from an LDAP server, and its tree as LDIF.
