// What can be told about a JSON schema while it is written; the server has the last word.

const TYPES = ["object", "array", "string", "number", "integer", "boolean", "null"];
const MOST = 64 * 1024;
const DEEPEST = 24;
const EXAMPLE = '{"total": {"type": "number"}}';

// {fault: sentence} or {fields: names}.
export function checkSchema(text) {
  let schema;
  try {
    schema = JSON.parse(text);
  } catch (error) {
    return { fault: `This is not JSON yet: ${error.message.replace(/^JSON\.parse: /, "")}.` };
  }
  if (!isObject(schema))
    return { fault: `A schema is a JSON object such as {"type": "object", "properties": ${EXAMPLE}}.` };
  if (new TextEncoder().encode(text).length > MOST) return { fault: "A schema has at most 64 kB." };
  const fault = faultOf(schema, "", 0);
  return fault ? { fault } : { fields: Object.keys(isObject(schema.properties) ? schema.properties : {}) };
}

const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);

function faultOf(schema, place, depth) {
  const where = place ? `At ${place}: ` : "";
  if (depth > DEEPEST) return `A schema is nested at most ${DEEPEST} deep.`;
  if (typeof schema === "boolean") return "";
  if (!isObject(schema)) return `${where}a schema belongs here, such as {"type": "string"}.`;
  const types = schema.type === undefined ? [] : [schema.type].flat();
  const wrong = types.find((each) => !TYPES.includes(each));
  if (wrong !== undefined) return `${where}${JSON.stringify(wrong)} is no type; there are ${TYPES.join(", ")}.`;
  const { required = [] } = schema;
  if (!Array.isArray(required) || required.some((each) => typeof each !== "string"))
    return `${where}“required” is a list of names.`;
  if (schema.properties !== undefined && !isObject(schema.properties))
    return `${where}“properties” names the fields: ${EXAMPLE}.`;
  for (const [name, below] of Object.entries(schema.properties ?? {})) {
    const fault = faultOf(below, place ? `${place}.${name}` : name, depth + 1);
    if (fault) return fault;
  }
  return schema.items === undefined ? "" : faultOf(schema.items, `${place}[]`, depth + 1);
}
