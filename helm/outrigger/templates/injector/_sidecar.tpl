{{- /*
What the policy inserts, from the library's templates. An injected pod stands in any namespace, where a ConfigMap of this release is not to be had: `config`
travels in the container's environment. A ConfigMap of the pod's own namespace, if there is one, is the configuration file.
*/ -}}

{{- define "outrigger.injected" -}}
{{- $settings := deepCopy .Values.sidecar -}}
{{- $_ := set $settings "configAs" "environment" -}}
{{- if not $settings.existingConfigMap.name -}}
{{- $_ := set $settings.existingConfigMap "name" "outrigger" -}}
{{- $_ := set $settings.existingConfigMap "optional" true -}}
{{- end -}}
{{- toYaml (dict "Values" (dict "outrigger-sidecar" $settings) "Release" (dict "Name" .Release.Name "Namespace" .Release.Namespace)) -}}
{{- end }}

{{- /* CEL: our own values of what a pod or its namespace may set otherwise. */ -}}
{{- define "outrigger.injected.defaults" -}}
{{- $context := include "outrigger.injected" . | fromYaml -}}
{{- $defaults := dict "image" (include "outrigger-sidecar.image" $context) "config-map" (include "outrigger-sidecar.configMapName" $context) -}}
{{- range $resource := include "outrigger.injector.resources" . | fromYaml | keys -}}
{{- $part := splitList "-" $resource -}}
{{- with dig (printf "%ss" (index $part 1)) (index $part 0) "" (index $context.Values "outrigger-sidecar").resources }}{{ $_ := set $defaults $resource (toString .) }}{{ end -}}
{{- end -}}
{{- include "outrigger.cel" (dict "type" "labels" "value" $defaults) -}}
{{- end }}

{{- /* CEL: the limits or requests of the container, of which CPU and memory may be set otherwise. Called with a dict: root, kind, quantities. */ -}}
{{- define "outrigger.injected.quantities" -}}
{{- $entries := list -}}
{{- range $resource, $variable := include "outrigger.injector.resources" .root | fromYaml -}}
{{- $part := splitList "-" $resource -}}
{{- if eq (index $part 1) $.kind -}}
{{- $entries = append $entries (printf "?%q: optional.ofNonZeroValue(variables.%s)" (index $part 0) $variable) -}}
{{- end -}}
{{- end -}}
{{- range $name, $quantity := omit .quantities "cpu" "memory" -}}
{{- $entries = append $entries (printf "%q: %q" $name $quantity) -}}
{{- end -}}
{ {{- include "outrigger.cel.items" $entries -}} }
{{- end }}

{{- /* The container: its image is variables.image, and the settings of pod and namespace come before ours of the same name. */ -}}
{{- define "outrigger.injected.container" -}}
{{- $container := include "outrigger-sidecar.container" (include "outrigger.injected" . | fromYaml) | fromYaml -}}
{{- $env := include "outrigger.cel" (dict "type" "Object.spec.initContainers.env" "value" $container.env) -}}
{{- $own := "Object.spec.initContainers.env{name: name, value: variables.settings.filter(layer, name in layer)[0][name]}" -}}
{{- $_ := set $container "image" (dict "cel" "variables.image") -}}
{{- $resources := $container.resources | default dict -}}
{{- range $kind := list "limit" "request" -}}
{{- $quantities := get $resources (print $kind "s") | default dict -}}
{{- $_ := set $resources (print $kind "s") (dict "cel" (include "outrigger.injected.quantities" (dict "root" $ "kind" $kind "quantities" $quantities))) -}}
{{- end -}}
{{- $_ := set $container "resources" $resources -}}
{{- $_ := set $container "env" (dict "cel" (printf "%s.filter(e, !(e.name in variables.names)) + variables.names.map(name, %s)" $env $own)) -}}
{{- include "outrigger.cel" (dict "type" "Object.spec.initContainers" "value" $container) -}}
{{- end }}

{{- /* The volumes, a list. Pod or namespace may name another ConfigMap, and a Secret that is mounted whole. */ -}}
{{- define "outrigger.injected.volumes" -}}
{{- $context := include "outrigger.injected" . | fromYaml -}}
{{- $volumes := include "outrigger-sidecar.volumes" $context | fromYamlArray -}}
{{- range $volume := $volumes -}}
{{- if eq $volume.name (include "outrigger-sidecar.configVolume" $context) -}}
{{- range $source := $volume.projected.sources -}}
{{- with $source.configMap }}{{ $_ := set . "name" (dict "cel" "variables.configMap") }}{{ end -}}
{{- end -}}
{{- $sources := include "outrigger.cel" (dict "type" "Object.spec.volumes.projected.sources" "value" $volume.projected.sources) -}}
{{- $secret := "Object.spec.volumes.projected.sources{secret: Object.spec.volumes.projected.sources.secret{name: name}}" -}}
{{- $_ := set $volume.projected "sources" (dict "cel" (printf "%s + variables.secrets.map(name, %s)" $sources $secret)) -}}
{{- end -}}
{{- end -}}
{{- include "outrigger.cel" (dict "type" "Object.spec.volumes" "value" $volumes) -}}
{{- end }}

{{- /* What a container of the application gets, where it has not said otherwise itself. Called with (list context path), path being containers or initContainers. */ -}}
{{- define "outrigger.injected.application" -}}
{{- $context := include "outrigger.injected" (index . 0) | fromYaml -}}
{{- $type := printf "Object.spec.%s" (index . 1) -}}
{{- $env := include "outrigger.cel" (dict "type" (printf "%s.env" $type) "value" (include "outrigger-sidecar.appEnv" $context | fromYamlArray)) -}}
{{- $mounts := include "outrigger.cel" (dict "type" (printf "%s.volumeMounts" $type) "value" (include "outrigger-sidecar.appVolumeMounts" $context | fromYamlArray)) -}}
{{ $type }}{
  name: c.name,
  env: {{ $env | indent 2 | trim }}.filter(e, !has(c.env) || !c.env.exists(own, own.name == e.name)),
  volumeMounts: {{ $mounts | indent 2 | trim }}
}
{{- end }}

{{- /* Which requests the policies look at: pods that ask for the sidecar, as they are created. */ -}}
{{- define "outrigger.injector.pods" -}}
objectSelector:
  matchLabels:
    outrigger.io/inject: "true"
resourceRules:
  - apiGroups: [""]
    apiVersions: [v1]
    operations: [CREATE]
    resources: [pods]
{{- end }}
