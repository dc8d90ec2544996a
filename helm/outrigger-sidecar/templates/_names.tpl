{{- /*
What the sidecar's parts are called. The names are the interface to applications, so they are no settings.

Every template of this chart is called with a context that has .Values (whose key "outrigger-sidecar" holds the settings) and .Release. Your chart's own
context is one:

  {{ include "outrigger-sidecar.container" . }}

Under an alias, or for a second set of settings, make one:

  {{ include "outrigger-sidecar.container" (dict "Values" (dict "outrigger-sidecar" .Values.kafka) "Release" .Release) }}
*/ -}}

{{- define "outrigger-sidecar.containerName" -}}outrigger{{- end }}

{{- define "outrigger-sidecar.socketVolume" -}}outrigger-socket{{- end }}

{{- define "outrigger-sidecar.configVolume" -}}outrigger-config{{- end }}

{{- define "outrigger-sidecar.socketDirectory" -}}/run/outrigger{{- end }}

{{- define "outrigger-sidecar.socket" -}}
{{ include "outrigger-sidecar.socketDirectory" . }}/outrigger.sock
{{- end }}

{{- define "outrigger-sidecar.configDirectory" -}}/etc/outrigger{{- end }}

{{- define "outrigger-sidecar.configMapName" -}}
{{- $s := index .Values "outrigger-sidecar" -}}
{{- if and $s.existingConfigMap.name $s.config (eq $s.configAs "file") -}}
{{- fail "outrigger-sidecar: both config and existingConfigMap.name are set; use one of them, or configAs: environment" -}}
{{- end -}}
{{- $s.existingConfigMap.name | default (printf "%s-outrigger" (.Release.Name | trunc 53 | trimSuffix "-")) -}}
{{- end }}

{{- define "outrigger-sidecar.image" -}}
{{- $image := (index .Values "outrigger-sidecar").image -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository $image.tag -}}
{{- end -}}
{{- end }}
