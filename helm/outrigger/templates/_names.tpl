{{- /* Names, labels, and the context in which the library's templates see the settings under `sidecar`. */ -}}

{{- define "outrigger.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" -}}
{{- end }}

{{- define "outrigger.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains (include "outrigger.name" .) .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "outrigger.name" .) | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{- /* Objects of the whole cluster: two releases of one name in two namespaces must not meet. */ -}}
{{- define "outrigger.clusterName" -}}
{{- $name := include "outrigger.fullname" . -}}
{{- if eq $name .Release.Namespace }}{{ $name }}{{ else }}{{ printf "%s-%s" .Release.Namespace $name }}{{ end -}}
{{- end }}

{{- define "outrigger.selectorLabels" -}}
app.kubernetes.io/name: {{ include "outrigger.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "outrigger.labels" -}}
{{ include "outrigger.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* An object's metadata. Called with a dict: root, name, and annotations and labels of its own. */ -}}
{{- define "outrigger.metadata" -}}
namespace: {{ .root.Release.Namespace }}
{{ include "outrigger.clusterMetadata" . }}
{{- end }}

{{- define "outrigger.clusterMetadata" -}}
name: {{ .name }}
labels:
  {{- include "outrigger.labels" .root | nindent 2 }}
  {{- with .labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with merge (dict) (.annotations | default dict) .root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
