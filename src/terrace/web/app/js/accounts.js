// The calls of people, keys, limits, usage and tenants.

import { get, id, query, request } from "./api.js";

const post = (path, body = {}) => request("POST", path, { body });
const patch = (path, body) => request("PATCH", path, { body });
const put = (path, body) => request("PUT", path, { body });
const remove = (path) => request("DELETE", path);

export const accounts = {
  register: (body) => post("/api/users", { ...body, login: true, cookie: true }),
  login: (body) => post("/api/auth/login", { ...body, cookie: true }),
  logout: () => post("/api/auth/logout"),
  oidcUrl: (name) => `/api/auth/oidc/${id(name)}`,
  forgot: (email) => post("/api/auth/forgot", { email }),
  reset: (token, password) => post("/api/auth/reset", { token, password }),
  invitation: (token) => post("/api/auth/invitation", { token }),
  accept: (token) => post("/api/auth/accept", { token }),
  switchTo: (tenant) => post("/api/auth/switch", { tenant, cookie: true }),

  rename: (user, name) => patch(`/api/users/${id(user)}`, { name }),
  erase: (user) => remove(`/api/users/${id(user)}`),
  password: (current, fresh) => post("/api/auth/password", { current, new: fresh }),
  sessions: (signal) => get("/api/auth/sessions", null, signal),
  endSession: (session) => remove(`/api/auth/sessions/${id(session)}`),

  keys: (params, signal) => get("/api/keys", params, signal),
  createKey: (body) => post("/api/keys", body),
  changeKey: (key, body) => patch(`/api/keys/${id(key)}`, body),
  revokeKey: (key) => remove(`/api/keys/${id(key)}`),
  rotateKey: (key, overlap) => post(`/api/keys/${id(key)}/rotate`, { overlap }),

  usage: (params, signal) => get("/api/usage", params, signal),
  usageUrl: (params) => query("/api/usage", { ...params, format: "csv" }),
  limits: (signal) => get("/api/limits", null, signal),
  setLimits: (subject, values) => put(`/api/limits/${id(subject)}`, values),
  setPrice: (model, body) => put(`/api/prices/${model.split("/").map(id).join("/")}`, body),

  members: (params, signal) => get("/api/members", params, signal),
  setRole: (user, role) => patch(`/api/members/${id(user)}`, { role }),
  removeMember: (user) => remove(`/api/members/${id(user)}`),
  resetLink: (user) => post(`/api/users/${id(user)}/reset-link`),
  invitations: (signal) => get("/api/invitations", null, signal),
  invite: (body) => post("/api/invitations", body),
  revokeInvitation: (invitation) => remove(`/api/invitations/${id(invitation)}`),
  audit: (params, signal) => get("/api/audit", params, signal),

  exportUrl: "/api/tenant/export",
  renameTenant: (name) => patch("/api/tenant", { name }),
  tenants: (params, signal) => get("/api/tenants", params, signal),
  createTenant: (body) => post("/api/tenants", body),
  changeTenant: (tenant, body) => patch(`/api/tenants/${id(tenant)}`, body),
  deleteTenant: (tenant) => remove(`/api/tenants/${id(tenant)}`),
  setTenantLimits: (tenant, values) => put(`/api/tenants/${id(tenant)}/limits`, values),
  inviteOwner: (tenant, body) => post(`/api/tenants/${id(tenant)}/invitations`, body),
  tenantExportUrl: (tenant) => `/api/tenants/${id(tenant)}/export`,
};
